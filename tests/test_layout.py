"""The shape of the repository: this checkout is what is loaded, files stay readable, locks and ranges agree."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rollout", "learner", "actors", "cluster")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60
MAX_EXPLAINED_LINES, EXPLANATION = 400, "# Why so long: "
"""A longer file has a line near its top that begins like this and gives the reason."""
VAGUE_NAMES = ("utils", "util", "helpers", "common", "misc", "types")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_load_from_this_checkout(package: str) -> None:
    """The names are generic: another distribution could own them."""
    assert Path(importlib.import_module(package).__file__ or "").parent == ROOT / package


def test_setup_cfg_ships_exactly_the_four_packages() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    included = parser["options.packages.find"]["include"].split()
    assert included == [f"{package}*" for package in PACKAGES]
    without_init = {path.parent for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert without_init == set(), "setuptools leaves out folders without __init__.py"


def test_no_package_under_tests() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def unreadable(name: str, text: str) -> Iterator[str]:
    """What makes a file hard to read, one line each."""
    lines = text.splitlines()
    explained = any(line.startswith(EXPLANATION) and line.removeprefix(EXPLANATION).strip() for line in lines[:40])
    limit = MAX_EXPLAINED_LINES if explained else MAX_FILE_LINES
    if len(lines) > limit:
        yield f"{name} has {len(lines)} lines, {limit} are allowed"
    if Path(name).stem in VAGUE_NAMES:
        yield f"{name} does not say what is in it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, {MAX_FUNCTION_LINES} are allowed"


def test_files_and_functions_stay_readable() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in SOURCES}
    assert [problem for name, text in texts.items() for problem in unreadable(name, text)] == []


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        ("a.py", "x = 1\n" * 300, []),
        ("a.py", "x = 1\n" * 301, ["a.py has 301 lines, 300 are allowed"]),
        ("a.py", EXPLANATION + "a table.\n" + "x = 1\n" * 399, []),
        ("a.py", EXPLANATION + "a table.\n" + "x = 1\n" * 400, ["a.py has 401 lines, 400 are allowed"]),
        ("a.py", EXPLANATION + "\n" + "x = 1\n" * 300, ["a.py has 301 lines, 300 are allowed"]),
        ("b/utils.py", "", ["b/utils.py does not say what is in it"]),
        ("a.py", "def f():\n" + "    x = 1\n" * 59, []),
        ("a.py", "\nasync def f():\n" + "    x = 1\n" * 60, ["a.py:2: f has 61 lines, 60 are allowed"]),
    ],
)
def test_what_is_unreadable(name: str, text: str, problems: list[str]) -> None:
    assert list(unreadable(name, text)) == problems


def read_lock(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines]
    assert all(len(pin) == 2 for pin in pins), "a lock holds exact pins only"
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pins}


def test_locks_have_no_package_twice() -> None:
    cpu, dev = read_lock("cpu.lock"), read_lock("dev.lock")
    assert set(cpu) & set(dev) == set()
    lines = [line for name in ("cpu.lock", "dev.lock") for line in (ROOT / "requirements" / name).read_text().split()]
    assert len(lines) == len(cpu) + len(dev)


def test_every_range_of_setup_cfg_contains_its_pin() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = parser["options.extras_require"]
    pins = read_lock("cpu.lock") | read_lock("dev.lock")
    for line in (parser["options"]["install_requires"] + extras["cpu"] + extras["dev"]).strip().splitlines():
        requirement = Requirement(line.strip())
        pinned = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(pinned, prereleases=True), f"{line}: locked at {pinned}"


def test_ci_calls_exactly_make_test() -> None:
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == [".ci/install_programs", "exec make test"]
    assert script.stat().st_mode & 0o111


def recipe(target: str) -> list[str]:
    """The commands of ours that `make` would run."""
    shown = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    commands = [line.removeprefix(".venv/bin/") for line in shown.stdout.splitlines() if line.startswith(".venv/bin/")]
    return [command for command in commands if not command.startswith("python -m pip")]


def test_make_test_has_stages_that_fail_early_and_runs_each_test_once() -> None:
    *lint, fast, slow = recipe("test")
    assert lint == recipe("lint") == ["ruff check .", "ruff format --check .", "mypy"]
    assert recipe("test-fast") == [*lint, fast.removesuffix(" --cov --cov-report=")]
    pytest = "python -m pytest --no-loadscope-reorder"
    assert (fast, slow) == (f'{pytest} -n 2 -m "not slow" --cov --cov-report=', f"{pytest} -n 2 -m slow")


def test_pre_commit_checks_what_make_lint_checks() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local", "nothing is fetched"
    entries = [
        hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in repository["hooks"]
    ]
    assert entries == [command.removesuffix(" .") for command in recipe("lint")]


def test_the_fast_tests_have_a_floor_of_coverage_over_everything_that_is_shipped() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    assert parser["coverage:run"]["source"].split() == list(PACKAGES)
    assert 80.0 <= parser.getfloat("coverage:report", "fail_under") < 100.0


def test_make_finds_python_and_names_the_install_by_its_locks() -> None:
    """`make -n` shows what would run; with PYTHON empty the recipe must say what is missing."""
    shown = subprocess.run(
        ["make", "-n", "-B", "install"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "--no-deps --no-build-isolation -r requirements/cpu.lock" in shown
    assert re.search(r"touch \.venv/installed-\d+-\d+", shown)


def test_shipped_text_files_are_there() -> None:
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "requirements/README.md", "docs/metrics.md"):
        assert (ROOT / name).read_text(encoding="utf-8").strip(), name
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
