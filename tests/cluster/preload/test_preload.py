"""Workers are forks of a process that has loaded what they need, and start by themselves where it cannot be had."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.cleanup.reaper import SOURCE_ROOT
from cluster.preload import forker
from cluster.preload.preload import Preload
from cluster.preload.stand_in import is_forked

TELL = """
import json, os, sys, tempfile, time, random
told = {
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "folder": os.getcwd(),
    "temporary": tempfile.gettempdir(), "arguments": sys.argv[1:], "path": sys.path[0], "name": __name__,
    "random": random.random(), "mine": os.environ.get("MINE"), "first": os.environ.get("FIRST"),
    "loaded": "sqlite3" in sys.modules, "places": sys.path,
}
partial = os.environ["TOLD"] + ".partial"
with open(partial, "w") as file:
    json.dump(told, file)
os.rename(partial, os.environ["TOLD"])
print("printed")
while "--stay" in sys.argv and not os.path.exists(os.environ["TOLD"] + ".go"):
    time.sleep(0.01)
import sqlite3
sys.exit(3)
"""
SLOW_S = 20.0


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` gives as soon as it is true."""
    end = time.monotonic() + SLOW_S
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "scripts" / "tell.py"
    path.parent.mkdir()
    path.write_text(TELL)
    return path


@pytest.fixture
def preload(tmp_path: Path) -> Iterator[Preload]:
    (tmp_path / "asks.py").write_text("import tempfile\ntempfile.gettempdir()")
    made = Preload(tmp_path, {"PYTHONPATH": f"{tmp_path}:{SOURCE_ROOT}", "FIRST": "1"}, ["sqlite3", "asks"])
    yield made
    made.close()
    made._process.wait(SLOW_S)


def start(preload: Preload, script: Path, told: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Ray does: runs the executable with a script and its arguments."""
    environment = {"PATH": os.environ["PATH"], "MINE": "2", "TOLD": str(told), "TMPDIR": str(script.parent)}
    environment["PYTHONPATH"] = f"/first/of/its/own:{SOURCE_ROOT}:/second"
    command = f"exec {preload.executable} {script} {' '.join(arguments)}"
    return subprocess.run(
        ["bash", "-c", command], cwd=script.parent, env=environment, capture_output=True, text=True, timeout=60
    )


def told_by(path: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(wait_for(lambda: path.exists() and path.read_text()))
    return answer


def test_a_worker_is_a_fork_with_streams_environment_and_folder_of_its_own(
    preload: Preload, script: Path, tmp_path: Path
) -> None:
    ended = start(preload, script, tmp_path / "told", "--number", "7")
    told = told_by(tmp_path / "told")
    assert told["loaded"] and told["parent"] == preload._process.pid
    assert (told["arguments"], told["folder"]) == (["--number", "7"], str(script.parent))
    assert (told["mine"], told["first"], told["name"]) == ("2", None, "__main__")
    assert told["path"] == str(script.parent)
    assert told["places"][1:3] == ["/first/of/its/own", "/second"]
    assert told["places"].count(str(SOURCE_ROOT)) == 1
    assert told["group"] == told["pid"]
    assert told["temporary"] == str(script.parent)  # although the preloaded process had looked up its own
    assert ended.stdout == "printed\n" and ended.stderr == ""


def test_two_workers_share_no_random_numbers_and_leave_no_zombie(
    preload: Preload, script: Path, tmp_path: Path
) -> None:
    told = []
    for name in ("a", "b"):
        start(preload, script, tmp_path / name)
        told.append(told_by(tmp_path / name))
    assert told[0]["random"] != told[1]["random"]
    places = [Path(f"/proc/{answer['pid']}") for answer in told]
    wait_for(lambda: not any(place.exists() for place in places))


@pytest.mark.slow
def test_workers_go_on_when_no_more_are_forked(preload: Preload, script: Path, tmp_path: Path) -> None:
    stand_in = threading.Thread(target=start, args=(preload, script, tmp_path / "told", "--stay"))
    stand_in.start()
    pid = told_by(tmp_path / "told")["pid"]
    preload.close()
    preload._process.wait(SLOW_S)
    assert Path(f"/proc/{pid}").exists()
    (tmp_path / "told.go").touch()
    stand_in.join(SLOW_S)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("modules", [["tests.no_such_module"], []])
def test_what_cannot_be_loaded_is_left_to_the_worker(modules: list[str], script: Path, tmp_path: Path) -> None:
    preload = Preload(tmp_path, {"PYTHONPATH": str(SOURCE_ROOT)}, [*modules, "json"])
    start(preload, script, tmp_path / "told")
    told = told_by(tmp_path / "told")
    assert told["parent"] == preload._process.pid and not told["loaded"]
    preload.close()
    preload._process.wait(SLOW_S)


@pytest.mark.parametrize("name", ["ray", "with_a_thread"])
def test_a_process_that_must_not_be_forked_forks_nothing(name: str, script: Path, tmp_path: Path) -> None:
    """Ray holds what it found in the environment; a thread may hold a lock. Workers then start by themselves."""
    (tmp_path / "ray.py").touch()
    (tmp_path / "with_a_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    preload = Preload(tmp_path, {"PYTHONPATH": f"{tmp_path}:{SOURCE_ROOT}"}, [name])
    ended = start(preload, script, tmp_path / "told")
    told = told_by(tmp_path / "told")
    assert ended.returncode == 3 and told["parent"] != preload._process.pid and not told["loaded"]
    assert (tmp_path / "preload.log").read_text() == ""
    preload.close()
    preload._process.wait(SLOW_S)


def test_a_worker_starts_by_itself_where_nothing_is_preloaded(preload: Preload, script: Path, tmp_path: Path) -> None:
    preload.close()
    ended = start(preload, script, tmp_path / "told", "x")
    told = told_by(tmp_path / "told")
    assert (ended.returncode, ended.stdout, told["arguments"]) == (3, "printed\n", ["x"])


def test_who_waits_no_longer_is_not_started_twice(
    preload: Preload, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.preload.stand_in.PATIENCE_S", 0.05)
    monkeypatch.setenv("TOLD", str(tmp_path / "impatient"))
    silent = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(silent))
        listener.listen()
        assert not is_forked(str(silent), [str(script)])  # as while it still loads
        assert forker._accepted(listener) is None  # when it has loaded, nobody is there
    start(preload, script, tmp_path / "told")
    told_by(tmp_path / "told")
    assert not (tmp_path / "impatient").exists()


@pytest.mark.slow
def test_what_workers_need_can_be_loaded_before_a_fork() -> None:
    """Neither Ray nor a thread comes with it, and nothing in the list is misspelt."""
    code = (
        "import gc, importlib, os, sys\ngc.disable()\n"
        "from cluster.preload.forker import FIRST, MODULES\n"
        "for name in (*FIRST, *MODULES): importlib.import_module(name)\n"
        "print('ray' in sys.modules, len(os.listdir('/proc/self/task')), 'vllm' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT), "VLLM_LOGGING_LEVEL": "ERROR"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines()[-1:] == ["False 1 True"], ended.stderr[-2000:]
