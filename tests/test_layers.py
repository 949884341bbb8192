"""Who may import whom: one table, no exceptions. docs/architecture.md shows the same table to people.

Syntax trees are read, so nothing is imported. An import is *lazy* if it is inside a function or under TYPE_CHECKING;
lazy ones count like the others, except where a row says that something is only loaded lazily.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "ray", "vllm", "deepspeed", "transformers", "peft"}
OUTSIDE = {"os", "pathlib", "io", "shutil", "subprocess", "transformers"}
"""What pure maths may not import, besides ``torch.distributed``: processes, files and models."""
MAX_ROOMS = 14

# Rooms of each folder from the ground up: a room imports only rooms before it, and the floors below its own.
ROOMS = {
    "": "rollout learner actors cluster",
    "rollout": "component seeding unawaited trajectory environment rewards config noise audit sampling scoring "
    "conversation tasks data",
    "learner": "storage config metrics masking maths batch plan models algorithms engine update checkpoint "
    "reward_model warmstart",
    "learner.maths": "row_blocks collective kernels outcomes quantiles logprobs replacement returns losses calibration",
    "learner.algorithms": "records streams invariance sampler corrections objectives base clipped_policy critic "
    "actor_critic without_critic with_critic presets catalogue",
    "learner.algorithms.critic": "config readouts targets terms regularisers draft short_keys evaluation composition",
    "actors": "faults recovery calls groups recording meters guards pools ledger processes workers loop",
    "cluster": "config cleanup preload warmstart display run reward_model reward_test check audit study report api cli",
}
# What a room may know of the outside and of lower floors, by the longest prefix that is named here.
MAY_IMPORT = {  # heavy packages; "*" any of the lower floors, else exactly these modules
    "rollout": ("transformers", "*"),
    "rollout.component": ("", "*"),
    "rollout.trajectory": ("", "*"),
    "rollout.config": ("", "*"),
    "rollout.sampling": ("torch vllm", "*"),
    "learner": ("torch transformers", "rollout.trajectory rollout.component"),
    "learner.config": ("", "rollout.component"),
    "learner.storage": ("", "rollout.component"),
    "learner.storage.files": ("torch", ""),
    "learner.models.lora": ("torch transformers peft", "rollout.component"),
    "learner.engine": ("torch deepspeed", "rollout.component"),
    "actors": ("ray torch", "*"),
    "actors.workers": ("ray torch transformers", "*"),
    "actors.faults": ("", ""),
    "actors.recovery": ("", "rollout.component"),
    "actors.groups": ("", "*"),
    "actors.loop": ("", "*"),
    "actors.recording": ("", "*"),
    "cluster": ("ray torch transformers vllm deepspeed", "*"),
    "cluster.cleanup": ("", "actors.recording.event_log"),
    "cluster.preload": ("ray", ""),
    "cluster.report": ("", "*"),
}
PURE = ("learner.masking", "learner.maths", "learner.algorithms")
"""Functions of tensors and what is composed of them."""
LIGHT = (
    "cluster.api",
    "cluster.cli",
    "cluster.config",
    "cluster.check",
    "cluster.cleanup",
    "cluster.preload",
    "cluster.report",
    "learner.algorithms.catalogue",
)
"""What loads nothing heavy when it is imported."""

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in ROOMS[""].split()
    for path in sorted((ROOT / layer).rglob("*.py"))
}


@dataclass(frozen=True)
class Import:
    """One imported module, where, and whether only when something is called or for type checkers."""

    name: str
    line: int
    lazy: bool


def imports_of(module: str) -> list[Import]:
    """Every import in a module; ``from a import b`` counts as ``a.b`` where that is a module of ours."""
    package = module if SOURCES[module].stem == "__init__" else module.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in SOURCES else base for alias in node.names}
            names |= {f"{base}.{alias.name}" for alias in node.names if base in HEAVY}  # torch.distributed
            yield from (Import(name, node.lineno, lazy) for name in sorted(names))
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or guarded or is_function)

    return list(visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")), False))


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or inside of one."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def row_of(module: str) -> tuple[set[str], set[str]]:
    """Heavy packages and modules of lower floors that a module may import."""
    parts = module.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    packages, lower = MAY_IMPORT[next(prefix for prefix in prefixes if prefix in MAY_IMPORT)]
    return set(packages.split()), set(lower.split())


def breaks_order(module: str, name: str) -> str:
    """Why ``module`` is not above ``name``, or an empty string; looks at the first folder in which they part."""
    for folder, names in ROOMS.items():
        inside = folder + "." if folder else ""
        if not (module + ".").startswith(inside) or not (name + ".").startswith(inside):
            continue
        rooms = names.split()
        here, there = (path[len(inside) :].split(".")[0] for path in (module, name))
        if here != there and here and there and rooms.index(there) > rooms.index(here):
            return f"{inside}{here} is below {inside}{there}"
    return ""


def forbidden(module: str, found: Import) -> str:
    """Why a module may not have an import, or an empty string."""
    layer, top = module.split(".")[0], found.name.split(".")[0]
    packages, lower = row_of(module)
    if top in HEAVY and top not in packages:
        return f"{module} does not know {top}"
    if top in HEAVY and is_in(module, LIGHT) and not found.lazy:
        return f"{module} loads {top} only when it is needed"
    if is_in(module, PURE) and (found.name.startswith("torch.distributed") or top in OUTSIDE):
        return "maths knows neither processes nor files"
    if found.name not in SOURCES or found.name == top:
        return ""
    if (
        top != layer
        and "*" not in lower
        and not is_in(found.name, tuple(lower))
        and not breaks_order(module, found.name)
    ):
        return f"{layer} reads only {', '.join(sorted(lower))} of {top}"
    return breaks_order(module, found.name)


def test_import_table() -> None:
    wrong = [
        f"{SOURCES[module].relative_to(ROOT)}:{found.line}: {found.name}: {why}"
        for module in SOURCES
        for found in imports_of(module)
        if (why := forbidden(module, found))
    ]
    assert wrong == []


def test_no_circle_of_imports() -> None:
    """Counting imports inside functions and for type checkers: a circle is still one that a reader has to unravel."""
    graph = {module: {found.name for found in imports_of(module)} & set(SOURCES) - {module} for module in SOURCES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_every_room_is_in_the_table_and_no_folder_is_crowded() -> None:
    folders = {path.parent for path in SOURCES.values()}
    for folder in sorted(folders):
        rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" and path.stem != "__init__"}
        rooms |= {path.name for path in folder.iterdir() if path in folders}
        name = ".".join(folder.relative_to(ROOT).parts)
        assert len(rooms) <= MAX_ROOMS, f"{name} has {len(rooms)} rooms"
        if name in ROOMS:
            assert rooms == set(ROOMS[name].split()), name


@pytest.mark.parametrize(
    ("module", "text", "why"),
    [
        ("rollout.conversation.runner", "import learner.batch", "rollout is below learner"),
        ("rollout.rewards.numeric", "import rollout.scoring.panel", "rollout.rewards is below rollout.scoring"),
        (
            "rollout.conversation.runner",
            "def f():\n    import torch",
            "rollout.conversation.runner does not know torch",
        ),
        ("learner.maths.returns", "from torch import distributed", "maths knows neither processes nor files"),
        ("learner.maths.losses.value", "import learner.batch", "learner.maths is below learner.batch"),
        (
            "learner.maths.returns",
            "import learner.maths.losses.kl",
            "learner.maths.returns is below learner.maths.losses",
        ),
        (
            "learner.update.learner",
            "from rollout.scoring.record import RewardRecord",  # the wall: the clean score is in there
            "learner reads only rollout.component, rollout.trajectory of rollout",
        ),
        ("cluster.check.check", "import torch", "cluster.check.check loads torch only when it is needed"),
        ("cluster.cleanup.reaper", "def f():\n    import ray", "cluster.cleanup.reaper does not know ray"),
    ],
)
def test_the_table_itself(module: str, text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of violation is seen."""
    source = tmp_path / "module.py"
    source.write_text(text)
    monkeypatch.setitem(SOURCES, module, source)
    assert [reason for found in imports_of(module) if (reason := forbidden(module, found))] == [why]


@pytest.mark.slow
@pytest.mark.parametrize("package", LIGHT)
def test_light_packages_load_nothing_heavy(package: str) -> None:
    """Every module of them, in a fresh process."""
    modules = [module for module in SOURCES if is_in(module, (package,)) and not module.endswith("__main__")]
    program = f"import {', '.join(modules)}, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert shown.split() == []


def test_the_reaper_loads_only_the_standard_library_and_the_event_log() -> None:
    """It has to work when everything else is broken, and lives as long as the run: it is to stay small."""
    program = (
        "import sys; before = set(sys.modules); import cluster.cleanup.reaper; "
        "new = {name for name in set(sys.modules) - before if name.partition('.')[0] not in sys.stdlib_module_names}; "
        "print(*sorted(name for name in new if getattr(sys.modules[name], '__file__', '').count('__init__') == 0))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert shown.split() == [
        "actors.recording.event_log",
        "actors.recording.safe_text",
        "cluster.cleanup.leftovers",
        "cluster.cleanup.reaper",
        "learner.storage.disk_full",
    ]
