"""What is loaded before it is known whether there will be a run: answers a question, and is gone if there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cleanup.leftovers import MARK, members
from cluster.cleanup.reaper import SOURCE_ROOT
from cluster.preload import preload
from cluster.preload.head_start import HeadStart
from tests.cluster.preload.test_preload import SLOW_S, wait_for

FUNCTIONS = """
import os
def tell(question):
    return question, os.getppid(), os.environ.get("OMP_NUM_THREADS"), "sqlite3" in sys.modules
def fail(question):
    raise KeyError(question)
def end(question):
    os._exit(7)
def wait(question):
    open(question, "w").close()
    import time
    time.sleep(600)
import sys
"""
KILLED = """
import sys
from pathlib import Path
from cluster.preload import preload
preload.FIRST, preload.MODULES = ("json",), ("sqlite3",)
from cluster.preload.head_start import HeadStart
with HeadStart({"PYTHONPATH": sys.argv[1]}) as start:
    print(start.folder, flush=True)
    start.ask("functions:wait", sys.argv[2])
"""


@pytest.fixture
def search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where forks find the functions; little is loaded before them."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    monkeypatch.setattr(preload, "FIRST", ("sqlite3",))
    monkeypatch.setattr(preload, "MODULES", ("json",))
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(SOURCE_ROOT)


def test_an_answer_comes_from_a_fork_that_searches_modules_where_the_caller_does(
    search_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with HeadStart({"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"}) as start:
        assert start.preload is not None
        answer = start.ask("functions:tell", {"a": [1, 2]})
        assert answer is not None
        question, parent, threads, has_loaded = answer
        assert question == {"a": [1, 2]} and parent == start.preload._process.pid and has_loaded
        assert threads == "3", "the environment is the caller's, not that of the workers"
        folder, process = start.folder, start.preload._process
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    wait_for(lambda: not members(folder))


@pytest.mark.parametrize("name", ["fail", "end", "no_such_function"])
def test_no_answer(name: str, search_path: str) -> None:
    with HeadStart({"PYTHONPATH": search_path}) as start, HeadStart(None) as without_process:
        assert start.ask(f"functions:{name}", 1) is None
        assert without_process.ask("functions:tell", 1) is None
    assert not start.folder.exists() and not without_process.folder.exists()


def test_what_was_taken_stays(search_path: str, tmp_path: Path) -> None:
    with HeadStart({"PYTHONPATH": search_path}) as start:
        start.take()
    assert start.preload is not None and start.folder.exists()
    process = start.preload._process
    assert process.poll() is None
    environment = wait_for(lambda: Path(f"/proc/{process.pid}/environ").read_bytes())
    assert f"{MARK}={start.folder}".encode() in environment.split(b"\0"), "a reaper finds it, and all that it forks"
    start.preload.close()
    assert process.wait(SLOW_S) == 0
    assert start.folder.exists(), "others clear up"
    (start.folder / "preload.log").unlink()
    (start.folder / "tmp").rmdir()
    start.folder.rmdir()


def test_nothing_is_left_when_the_driver_is_killed_in_the_middle_of_a_question(
    search_path: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([search_path, str(tmp_path)])}
    driver = subprocess.Popen(
        [sys.executable, "-c", KILLED, search_path, str(begun)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert driver.stdout is not None
    folder = Path(driver.stdout.readline().strip())
    wait_for(begun.exists)
    assert len(members(folder)) >= 1
    driver.kill()
    driver.wait()
    driver.stdout.close()
    wait_for(lambda: not folder.exists() and not members(folder))
