"""What the command line can import, the workers can; a module of the user's takes the place of no package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.config.processes.search_path import ROOT, add_working_folder, workers_path

SHADOWS = ("rollout", "learner", "actors", "cluster")
COMMAND = "import sys; from cluster.cli import main; main(prog_name='dvpo')"
WORKER = """
import json, ray
from pathlib import Path
from cluster.cli import main  # as the command line begins
from cluster.config.run_config import load_config
from cluster.config.processes.search_path import add_working_folder
from cluster.run.session import ray_session
add_working_folder()

def look():
    import importlib, os
    places = {}
    for name in ("rollout.component", "learner.config", "actors.faults", "cluster.config.paths", "in_here", "in_lib"):
        try:
            places[name] = importlib.import_module(name).__file__
        except ImportError as error:
            places[name] = str(error)
    return places

with ray_session(load_config("small.yaml"), Path("runs/small").resolve(), 128):
    there = ray.get(ray.remote(num_cpus=0)(look).remote())
print(json.dumps([look(), there]))
"""


@pytest.fixture
def folder(run_file: Path) -> Path:
    """The working folder, with modules of the user's own in it and in ``lib``."""
    here = run_file.parent
    for name in SHADOWS:
        (here / f"{name}.py").write_text('"""Mine."""\nRATE = 1e-3\n')
    (here / "lib").mkdir()
    (here / "in_here.py").write_text("def score(prompt, trajectory):\n    return 1.0\n")
    (here / "lib" / "in_lib.py").write_text("def score(prompt, trajectory):\n    return 1.0\n")
    (here / "program.py").mkdir()  # a script's own folder comes first, and must not be this one
    (here / "program.py" / "command.py").write_text(COMMAND)
    (here / "program.py" / "worker.py").write_text(WORKER)
    return here


def run(program: str, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"program.py/{program}", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_installed", [True, False])
def test_the_command_line_finds_ours_and_theirs(is_installed: bool, folder: Path) -> None:
    """All four names are the user's too, and both of the user's places are searched."""
    path = f"{ROOT}:lib"
    if is_installed:  # an installed command finds the packages behind all that is the user's
        path = f"lib:{folder}:{ROOT}"
        (folder / "cluster.py").unlink()  # it would be found before the command line itself
    override = "reward.functions=[{type: 'in_here:score'}, {type: 'in_lib:score'}]"
    shown = run("command.py", "check", "small.yaml", "--set", override, path=path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.endswith("ok\n")


@pytest.mark.slow
def test_workers_find_the_same(folder: Path) -> None:
    shown = run("worker.py", path=f"{ROOT}:lib")
    assert shown.returncode == 0, shown.stderr
    here, there = json.loads(shown.stdout.splitlines()[-1])
    assert there == here
    assert here["learner.config"] == f"{ROOT}/learner/config.py"
    assert (here["in_here"], here["in_lib"]) == (f"{folder}/in_here.py", f"{folder}/lib/in_lib.py")


def test_the_workers_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for inherited, expected in {
        "": [],
        "lib": [f"{folder}/lib"],
        f"/a:{ROOT}::../b": ["/a", os.path.abspath("../b")],
    }.items():
        monkeypatch.setenv("PYTHONPATH", inherited)
        assert workers_path().split(":") == [ROOT, str(folder), *expected]


def test_the_working_folder_comes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/a", str(folder), "/b"])
    add_working_folder()
    add_working_folder()
    assert sys.path == [str(folder), "/a", "/b"]
