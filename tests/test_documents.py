"""Every block of code in the documentation is what it claims to be, and the site builds without a warning.

A YAML block is validated by the model that would read it, with the options of every built-in part it names; a line of a
shell block that calls ``dvpo`` is parsed by the command line itself; a Python block is compiled, and what it imports of
ours is there. Nothing is started.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import pickle
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from actors.recording.trackers import TRACKERS
from cluster.cli.entry import main
from cluster.config.run_config import RunConfig
from cluster.reward_model.config import RewardModelConfig
from cluster.study.config import StudyConfig
from learner.algorithms.catalogue import build_algorithm
from rollout.component import Component, ComponentSpec, UserError, resolve_class
from rollout.component.errors import mistake_in
from rollout.component.mistakes import NotFound, Unreadable
from rollout.noise import NOISES
from rollout.rewards import REWARDS
from rollout.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "requirements", "deploy", "examples", "benchmarks", "studies", "configs", "cluster", "rollout")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
"""Every page of the repository: those in docs/, READMEs of folders and of the projects that `dvpo init` writes."""
LANGUAGES = {"yaml", "bash", "python", "json", "mermaid", "text", ""}
NEVER_OURS = {"source", "export", "cd", "ray", "pip", "inspect", "--", "for", "done", "kill", "cat"}
"""First words of lines in shell blocks that other programs read."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.relative_to(ROOT)}:{line}", found[1], found[2])


def of(language: str) -> Any:
    found = [block for block in blocks() if block.language == language]
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def test_every_block_says_what_it_is() -> None:
    assert {block.language for block in blocks()} <= LANGUAGES
    assert sum(block.language in ("yaml", "bash", "python") for block in blocks()) > 40


@of("yaml")
def test_a_yaml_block_is_read_by_its_model(block: Block) -> None:
    found = yaml.safe_load(block.text)
    if "axes" in found:
        StudyConfig.model_validate(found)
    elif "loss" in found:
        RewardModelConfig.model_validate(found)
    else:
        if not found.keys() & RunConfig.model_fields.keys():  # options of a task of files
            found = {"data": {"task": {"type": "dataset", "train": "a.jsonl", "eval": {"test": "b.jsonl"}, **found}}}
        config = RunConfig.model_validate({"model": {"path": "models/demo"}, **found})
        validate_parts(config)


def validate_parts(config: RunConfig) -> None:
    """The options of everything that is named in a configuration and is built in."""
    validate(config.data.task, TASKS)
    for spec in (*config.reward.functions, *config.reward.gold):
        validate(spec, REWARDS)
    for spec in config.reward.noise:
        validate(spec, NOISES)
    for spec in config.logging.sinks:
        validate(spec, TRACKERS)
    if ":" not in config.algorithm.name and not any(":" in text for text in texts(config.algorithm.options)):
        build_algorithm(config.algorithm.name, config.algorithm.options)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def validate(spec: ComponentSpec, builtins: Mapping[str, str]) -> None:
    if ":" not in spec.type:  # else a part of the reader's own
        resolve_class(spec, builtins, Component, "block").Config.model_validate(spec.options)


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each line, continued lines put together, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


@of("bash")
def test_a_command_is_parsed_by_the_program_that_it_calls(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(block):
        while "=" in words[0].split("/")[0]:  # variables before a command
            words = words[1:]
        if words[:3] == ["python", "-m", "cluster.cli"]:
            words = ["dvpo", *words[3:]]
        if words[0] == "dvpo":
            parse(words[1:])
        elif words[0] == "make":
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:]), block.place
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), block.place
        else:
            assert words[0] in NEVER_OURS, f"{block.place}: {words}"


def parse(arguments: list[str]) -> None:
    """As the command line does, without doing it."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.commands.get(name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    command.make_context("dvpo", arguments)  # raises click's UsageError


@of("python")
def test_a_python_block_runs_and_calls_what_there_is(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it imports and defines is run; a call of ours, which may start a run, is held against its signature."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    tree = ast.parse(textwrap.dedent(block.text))
    defined = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    body: list[ast.stmt] = [node for node in tree.body if isinstance(node, defined)]
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(ast.Module(body, []), block.place, "exec"), names)
    for call in ast.walk(tree):
        called = names.get(call.func.id) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else None
        if isinstance(call, ast.Call) and called is not None and not _is_built_in(called):
            inspect.signature(called).bind(*call.args, **{word.arg: word for word in call.keywords if word.arg})


def _is_built_in(called: Any) -> bool:
    """An exception without a constructor of its own, which takes anything."""
    return isinstance(called, type) and issubclass(called, Exception) and "__init__" not in vars(called)


@of("mermaid")
def test_a_diagram_names_what_it_draws(block: Block) -> None:
    """Brackets and subgraphs are closed, and who takes part in a sequence has been introduced."""
    kind, *lines = (line.strip() for line in block.text.strip().splitlines())
    assert kind.split()[0] in {"flowchart", "sequenceDiagram", "stateDiagram-v2"}, block.place
    assert all(block.text.count(one) == block.text.count(other) for one, other in ("()", "[]", "{}"))
    assert sum(line.startswith("subgraph") for line in lines) == sum(line == "end" for line in lines)
    if kind == "sequenceDiagram":
        known = {line.split()[1] for line in lines if line.startswith("participant")}
        spoken = (re.match(r"(\w+)\s*--?>>[+-]?\s*(\w+)\s*:", line) for line in lines)
        assert all(set(found.groups()) <= known for found in spoken if found is not None)


@of("json")
def test_a_json_block_is_json(block: Block) -> None:
    """One value after the other; an object may go on in the next line."""
    left = block.text.strip()
    while left:
        _, end = json.JSONDecoder().raw_decode(left)
        left = left[end:].lstrip()


@pytest.fixture(scope="module")
def listing() -> Any:
    """The program that writes docs/errors.md."""
    return program("list_errors")


def program(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # where a dataclass looks for what its annotations name
    spec.loader.exec_module(found)
    return found


def test_every_code_and_message_of_the_source_has_its_entry(listing: Any) -> None:
    written = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert written == listing.catalogue(), "run: python docs/list_errors.py"
    kinds, _ = listing.kinds()
    assert set(re.findall(r"^### (.+)$", written, re.MULTILINE)) == set(kinds) and len(kinds) > 60
    assert written.count("\n- `") > 250 and "the data set has no rows" in written
    for kind in kinds.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", kind.code) and len(kind.meaning) > 30 and kind.meaning.endswith(".")


def test_the_reference_is_that_of_the_source() -> None:
    for name, made in program("list_reference").PAGES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made(), "run: python docs/list_reference.py"


def test_every_error_that_is_raised_has_a_code(listing: Any) -> None:
    """An error without a kind may hand on what has a code, and may not say anything of its own."""
    own = [(module, text) for module, name, text in listing.raised() if name == listing.ROOT_CLASS]
    assert own == [], "a class of rollout/component/mistakes.py says which kind of mistake this is"
    _, codes = listing.kinds()
    assert {codes[name] for _, name, _ in listing.raised() if name in codes} >= {"run-exists", "data-bad-row"}


def test_an_error_keeps_the_code_of_its_cause() -> None:
    cause = NotFound("x.yaml: no such file")
    assert str(cause) == "x.yaml: no such file [file-not-found]"
    assert str(UserError(f"study.yaml: {cause}")) == str(Unreadable(f"study.yaml: {cause}")) == f"study.yaml: {cause}"
    assert str(pickle.loads(pickle.dumps(cause))) == str(cause) and str(UserError("by a reward")) == "by a reward"
    assert mistake_in(f"NotFound: {cause}") == str(cause)
    assert mistake_in("ValueError: x") is None and mistake_in("Not at all") is None


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} == linked


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links between pages and to headings included."""
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= pages
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="evaluation.html"' in index and "toctree-l1" in index
