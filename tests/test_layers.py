"""Who may import whom. The table is that of CONTRIBUTING.md; there is no list of exceptions.

Syntax trees are read, so nothing is imported. An import is *lazy* if it is inside a function or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("rollout", "learner", "actors", "cluster")  # each may import those before it
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}
HEAVY = {"torch", "ray", "vllm", "deepspeed", "transformers"}
MATHS = ("learner.masking", "learner.logprobs", "learner.quantiles", "learner.returns", "learner.losses")
ALGORITHMS = "learner.algorithms"
OUTSIDE = {"transformers", "os", "pathlib", "io", "shutil", "subprocess"}
RECORDS = {"learner.batch", "learner.metrics"}  # what maths may know of the rest of the learner


@dataclass(frozen=True)
class Import:
    """One imported module, where, whether only when something is called, and whether only for type checkers."""

    name: str
    line: int
    lazy: bool
    typing: bool

    @property
    def top(self) -> str:
        return self.name.split(".")[0]


def imports_of(module: str) -> list[Import]:
    """Every import in a module; ``from a import b`` counts as ``a.b`` where that is a module of ours."""
    package = module if SOURCES[module].stem == "__init__" else module.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in SOURCES else base for alias in node.names}
            names |= {f"{base}.{alias.name}" for alias in node.names if base in HEAVY}  # torch.distributed
            yield from (Import(name, node.lineno, lazy, typing) for name in sorted(names))
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or guarded or is_function, typing or guarded)

    return list(visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")), False, False))


@cache
def maths() -> frozenset[str]:
    """Losses, estimators and algorithms, and whatever of the learner they import: it has to be as pure as they are."""
    found: set[str] = set()
    queue = [module for module in SOURCES if module.startswith((*MATHS, ALGORITHMS))]
    while queue:
        module = queue.pop()
        if module not in found and module not in RECORDS and module != "learner":
            found.add(module)
            queue += [below.name for below in imports_of(module) if below.name in SOURCES and below.top == "learner"]
    return frozenset(found)


def forbidden(module: str, found: Import) -> str:
    """Why a module may not have an import, or an empty string."""
    layer, _, rest = module.partition(".")
    name, top = found.name, found.top
    if top in LAYERS and LAYERS.index(top) > LAYERS.index(layer):
        return f"{layer} is below {top}"
    if rest.rpartition(".")[2] in ("config", "trajectory", "component") and top in HEAVY:
        return "records and options load nothing heavy"
    if layer == "rollout" and top in ("ray", "deepspeed"):
        return "rollout knows neither Ray nor DeepSpeed"
    if layer == "rollout" and top in ("torch", "vllm") and not rest.startswith("vllm_"):
        return "only rollout/vllm_*.py know torch and vLLM"
    if layer == "learner" and top in ("ray", "vllm"):
        return "the learner knows neither Ray nor vLLM"
    if layer == "learner" and top == "deepspeed" and rest != "deepspeed_engine":
        return "only learner/deepspeed_engine.py knows DeepSpeed"
    if layer == "learner" and top == "rollout" and name not in ("rollout", "rollout.trajectory", "rollout.component"):
        return "the learner reads only the records of rollout"
    if module in maths():
        if name.startswith("torch.distributed") or top in OUTSIDE:
            return "maths knows neither processes nor files"
        if name == "learner.batch" and not module.startswith(ALGORITHMS):
            return "of maths, only algorithms know the batch"
    if layer == "cluster" and not found.lazy and top in HEAVY:
        return "cluster loads heavy packages inside functions"
    return ""


@pytest.mark.parametrize("module", SOURCES)
def test_import_table(module: str) -> None:
    wrong = [(found, forbidden(module, found)) for found in imports_of(module)]
    assert [f"line {found.line}: {found.name}: {why}" for found, why in wrong if why] == []


def test_no_import_cycle() -> None:
    """Counting imports inside functions too: a cycle through them is still one that a reader has to unravel."""
    graph = {
        module: {found.name for found in imports_of(module) if not found.typing} & set(SOURCES) - {module}
        for module in SOURCES
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


@pytest.mark.parametrize(
    ("module", "text", "why"),
    [
        ("rollout.runner", "import learner.batch", "rollout is below learner"),
        ("rollout.runner", "def f():\n    import torch", "only rollout/vllm_*.py know torch and vLLM"),
        ("learner.returns", "from torch import distributed", "maths knows neither processes nor files"),
        ("learner.losses.value", "from learner.batch import TrainBatch", "of maths, only algorithms know the batch"),
        ("learner.update", "from rollout.config import RolloutConfig", "the learner reads only the records of rollout"),
        ("cluster.cli", "import torch", "cluster loads heavy packages inside functions"),
        ("cluster.config", "def f():\n    import torch", "records and options load nothing heavy"),
    ],
)
def test_the_table_itself(module: str, text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of violation is seen."""
    source = tmp_path / "module.py"
    source.write_text(text)
    monkeypatch.setitem(SOURCES, module, source)
    assert [reason for found in imports_of(module) if (reason := forbidden(module, found))] == [why]


@pytest.mark.parametrize("module", ["cluster.cli", "cluster.config", "learner.config", "learner.algorithms"])
def test_light_modules_load_nothing_heavy(module: str) -> None:
    program = f"import {module}, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert shown.split() == []
