"""The reaper, with a driver that starts ordinary processes in place of a Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from actors.recording.event_log import read_events
from cluster.cleanup.leftovers import KEEP_SESSIONS, MARK, keep_logs, members

REPOSITORY = Path(__file__).resolve().parents[3]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
)
SHARING = """
import mmap, os, sys, time
from multiprocessing import shared_memory
segment = shared_memory.SharedMemory(create=True, size=4096)
users = open(sys.argv[1], "r+b")
mapped = mmap.mmap(users.fileno(), 4096)
print(segment.name, flush=True)
time.sleep(300)
"""
DRIVER = f"""
import os, subprocess, sys, time
from pathlib import Path
from cluster.cleanup.leftovers import MARK
from cluster.cleanup.reaper import Reaper
folder, run_dir, users = map(Path, sys.argv[1:4])
reaper = Reaper(folder, run_dir)
os.environ[MARK] = str(folder)
logs = folder / "session_2026-01-01" / "logs"
logs.mkdir(parents=True)
(logs / "worker-rollout.out").write_text("printed")
(logs / "worker-empty.out").touch()
run = lambda code: subprocess.Popen([sys.executable, "-c", code, str(users)], stdout=subprocess.PIPE, text=True)
processes = [run({STUBBORN!r}), run({SHARING!r})]
print(*(process.stdout.readline().strip() for process in processes), flush=True)
if sys.argv[4] == "orderly":
    reaper.finish()
    print("finished", flush=True)
else:
    time.sleep(300)
"""

pytestmark = pytest.mark.slow
StartDriver = Callable[[str], "Driver"]


class Driver:
    """A driver that has started everything, and a user's file in shared memory that its processes map."""

    def __init__(self, tmp_path: Path, how: str) -> None:
        self.folder, self.run_dir = tmp_path / "ray", tmp_path / "run"
        self.folder.mkdir()
        self.run_dir.mkdir()
        self.users_file = Path(f"/dev/shm/dvpo-test-{os.getpid()}-{time.monotonic_ns()}")
        self.users_file.write_bytes(bytes(4096))
        arguments = [str(self.folder), str(self.run_dir), str(self.users_file), how]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.segment = Path("/dev/shm") / self.process.stdout.readline().split()[1]

    def wait_until_clean(self, timeout_s: float = 20.0) -> None:
        """Until nothing of the session is there any more."""
        deadline = time.monotonic() + timeout_s
        while members(self.folder) or self.folder.exists() or self.segment.exists():
            assert time.monotonic() < deadline, (members(self.folder), self.folder.exists(), self.segment)
            time.sleep(0.05)

    def close(self) -> None:
        """End whatever is left."""
        self.process.kill()
        self.process.communicate()
        for pid, _ in members(self.folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for file in (self.users_file, self.segment):
            file.unlink(missing_ok=True)


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[StartDriver]:
    """Start drivers; they and their processes are ended after the test."""
    drivers: list[Driver] = []

    def start(how: str) -> Driver:
        drivers.append(Driver(tmp_path, how))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


def test_after_sigkill_of_the_driver_only_its_own_things_go(start_driver: StartDriver) -> None:
    """Not a process that merely names the folder, nor a user's file that its processes had mapped."""
    driver = start_driver("killed")
    assert len(members(driver.folder)) >= 2
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", str(driver.folder)])
    try:
        driver.process.kill()
        driver.process.wait()
        driver.wait_until_clean()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert driver.users_file.exists()
    deadline = time.monotonic() + 10.0
    while not (events := read_events(driver.run_dir / "events.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(event["kind"], event["level"]) for event in events] == [("driver", "error")]
    logs = driver.run_dir / "logs" / "session_2026-01-01"
    assert [path.name for path in logs.iterdir()] == ["worker-rollout.out"]


def test_after_an_orderly_end_the_driver_waits_until_all_is_gone(start_driver: StartDriver) -> None:
    driver = start_driver("orderly")
    assert driver.process.stdout is not None
    assert driver.process.stdout.readline() == "finished\n"
    assert members(driver.folder) == []
    assert not driver.folder.exists()
    assert not driver.segment.exists()
    assert driver.process.wait(10.0) == 0
    assert read_events(driver.run_dir / "events.jsonl") == []


def test_logs_of_the_last_sessions_are_kept(tmp_path: Path) -> None:
    folder, run_dir = tmp_path / "ray", tmp_path / "run"
    for day in range(1, KEEP_SESSIONS + 3):
        session = folder / f"session_2026-01-{day:02}"
        (session / "logs").mkdir(parents=True)
        (session / "logs" / "worker-a.err").write_text(str(day))
    (folder / "session_latest").symlink_to(session)
    keep_logs(folder, run_dir)
    assert not run_dir.exists(), "a run that was never begun gets no folder"
    run_dir.mkdir()
    keep_logs(folder, run_dir)
    kept = sorted(path.name for path in (run_dir / "logs").iterdir())
    assert kept == [f"session_2026-01-{day:02}" for day in range(3, KEEP_SESSIONS + 3)]


def test_the_mark_is_that_of_one_folder(tmp_path: Path) -> None:
    """/tmp/a is not taken for /tmp/ab."""
    longer = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"], env={**os.environ, MARK: f"{tmp_path}b"}
    )
    try:
        deadline = time.monotonic() + 10.0
        while [pid for pid, _ in members(Path(f"{tmp_path}b"))] != [longer.pid]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert members(tmp_path) == []
    finally:
        longer.kill()
        longer.wait()


def test_a_process_that_wrote_a_title_over_its_mark(tmp_path: Path) -> None:
    """As Ray's agents do: what follows a variable that was set anew stays readable, the mark does not."""
    code = (
        "import os; os.environ['CHANGED'] = 'y'\n"
        "import setproctitle, time; setproctitle.setproctitle('ray::Agent'); print(flush=True); time.sleep(300)"
    )
    (tmp_path / "agent.log").touch()
    with (tmp_path / "agent.log").open() as log:
        environment = {"FIRST": "x" * 500, MARK: str(tmp_path), "CHANGED": "x", "LAST": "z"}
        agent = subprocess.Popen([sys.executable, "-c", code], stdin=log, stdout=subprocess.PIPE, env=environment)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        left = Path(f"/proc/{agent.pid}/environ").read_bytes()
        assert MARK.encode() not in left and b"LAST=z" in left
        assert [pid for pid, _ in members(tmp_path)] == [agent.pid]
        assert members(tmp_path / "other") == []
    finally:
        agent.kill()
        agent.communicate()
