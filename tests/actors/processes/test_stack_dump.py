"""Stack dumps of real processes: busy, blocked in C, stopped, foreign, gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from actors.processes import stack_dump
from actors.processes.stack_dump import collect, collect_here, dump

REPOSITORY = Path(__file__).resolve().parents[3]
PREAMBLE = "import sys, threading; from pathlib import Path; from actors.processes.stack_dump import install\n"
INSTALL = "install(Path(sys.argv[1]), sys.argv[2])\n"
READY = "print('ready', flush=True)"
BUSY = f"def spins():\n    {READY}\n    while True: pass\nspins()"
BLOCKED = (
    f"def waits():\n    lock = threading.Lock(); lock.acquire(); {READY}; lock.acquire()\n"
    "threading.Thread(target=waits, name='second').start()\nimport select; select.select([], [], [])"
)
WITH_CHILD = f"import subprocess; {READY}; subprocess.run([sys.executable, '-c', 'import time; time.sleep(300)'])"

StartProcess = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProcess]:
    """Start a program that installs the handler first (or not), and wait until it has."""
    processes = []

    def start(name: str, body: str, install: str = INSTALL) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + install + body, str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(("body", "functions"), [(BUSY, ["spins"]), (BLOCKED, ["waits", "<module>"])])
def test_dump_of_a_process_that_runs_no_python_for_us(
    tmp_path: Path, start: StartProcess, body: str, functions: list[str]
) -> None:
    process = start("learner-0", body)
    for _ in range(2):  # the second dump comes after the first, and only it is returned
        text = collect("learner-0", process.pid, str(tmp_path))
        assert [f for f in functions if f"in {f}" not in text] == []
        assert text.count("(most recent call first)") == len(functions)
    assert process.poll() is None, "the process goes on"


def test_children_are_described(tmp_path: Path, start: StartProcess) -> None:
    process = start("rollout-0", WITH_CHILD)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text():
        assert process.poll() is None
    child = children.read_text().strip()
    text = collect("rollout-0", process.pid, str(tmp_path))
    assert f"child process {child}: " in text
    assert "threads" in text
    assert text in (tmp_path / f"rollout-0-{process.pid}.txt").read_text()


def test_a_process_without_the_handler_is_not_signalled(tmp_path: Path, start: StartProcess) -> None:
    """SIGUSR1 would end it."""
    process = start("other", BUSY, install="")
    with pytest.raises(OSError, match="no handler"):
        collect("other", process.pid, str(tmp_path))
    assert process.poll() is None


async def test_lines_for_all_and_reasons_for_those_that_cannot(
    tmp_path: Path, start: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_dump, "_GROW_TIMEOUT_S", 0.3)
    busy, stopped, gone = start("a", BUSY), start("b", BUSY), start("c", BUSY)
    stopped.send_signal(signal.SIGSTOP)
    gone.kill()
    gone.wait()

    async def send(node: str, name: str, pid: int, folder: str) -> str:
        if node == "lost":
            raise ConnectionError("node is gone")
        return f"stacks of {name} {pid}\n"

    places = {
        "a": ("here", busy.pid),
        "b": ("here", stopped.pid),
        "c": ("here", gone.pid),
        "d": ("there", 77),
        "e": ("lost", 78),
    }
    lines = await dump(places, tmp_path, "here", send)
    assert lines[0] == f"a: {tmp_path}/a-{busy.pid}.txt"
    assert lines[1].startswith(f"b: no stack dump: process {stopped.pid} wrote nothing in 0.3 s")
    assert "T (stopped)" in lines[1]
    assert lines[2].startswith("c: no stack dump: ")
    assert lines[3] == f"d: {tmp_path}/d-77.txt"
    assert (tmp_path / "d-77.txt").read_text() == "stacks of d 77\n", "brought here from a folder that is not shared"
    assert lines[4] == "e: no stack dump: node is gone"


def test_everything_of_this_machine_without_a_list(tmp_path: Path, start: StartProcess) -> None:
    alive, gone = start("learner-0", BUSY), start("rollout-1", BUSY)
    gone.kill()
    gone.wait()
    (tmp_path / f"x-{os.getpid()}.txt").touch()  # a number that now belongs to a process with no such file open
    assert collect_here(tmp_path) == [f"learner-0: {tmp_path}/learner-0-{alive.pid}.txt"]


def test_empty_files_of_predecessors_go(tmp_path: Path, start: StartProcess) -> None:
    (tmp_path / "learner-0-1.txt").touch()
    (tmp_path / "learner-0-2.txt").write_text("a dump")
    (tmp_path / "learner-01-3.txt").touch()
    process = start("learner-0", BUSY)
    left = {"learner-0-2.txt", "learner-01-3.txt", f"learner-0-{process.pid}.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left
