"""However a run ends, nothing of it stays: no process, port, shared memory or temporary file.

SIGTERM ends the run of four kills in test_faults.py.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from actors.recording.event_log import read_events
from cluster.cleanup.leftovers import MARK, members
from tests.integration.whole_runs import Command, StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

LEFT_WITHIN_S = 20.0
FAILS = (
    "from rollout.rewards.base import Reward\n"
    "class Broken(Reward):\n"
    "    async def __call__(self, prompt, trajectory):\n"
    "        draw = hash(prompt.prompt_id + str(trajectory.sample_index)) % 100\n"
    "        if draw < 20 or trajectory.policy_version_min >= 2:\n"
    "            raise KeyError('no such thing')\n"
    "        return 1.0\n"
)
"""At first it fails now and then, which is allowed, and later always."""


@dataclass
class Trace:
    """What a run has on the machine, seen from outside while it runs."""

    command: Command
    temporary: Path
    folder: Path | None = None
    ports: set[int] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)

    def note(self) -> None:
        """Look at what the processes have now."""
        self.command.note_processes()
        for process in list(self.command.seen.values()):
            with suppress(psutil.Error, OSError):
                if MARK in (environment := process.environ()):
                    self.folder = Path(environment[MARK])
                listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                self.ports |= {connection.laddr.port for connection in listening}
                for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                    if "/dev/shm/" in line:
                        self.shared.add(int(line.split()[4]))

    def note_until(self, text: str) -> None:
        """Wait until something has been printed, and look."""
        self.command.wait_for(text, 400.0)
        self.note()

    def note_until_started(self, num_processes: int) -> None:
        """Look until Ray has started some processes, long before everything is ready."""
        deadline = time.monotonic() + 60.0
        while len(self.command.seen) < num_processes or self.folder is None:
            assert time.monotonic() < deadline, self.command.output
            self.note()
            time.sleep(0.2)

    def assert_nothing_left(self) -> None:
        """Within 20 s of the command's end."""
        assert self.folder is not None
        assert self.command.survivors(LEFT_WITHIN_S) == []
        deadline = time.monotonic() + LEFT_WITHIN_S
        while left := self.left():
            assert time.monotonic() < deadline, left
            time.sleep(0.2)

    def left(self) -> list[str]:
        """What is still there."""
        assert self.folder is not None
        left = [f"process {pid}" for pid, _ in members(self.folder)]
        left += [str(self.folder)] * self.folder.exists()
        left += [str(path) for path in self.temporary.iterdir()]
        left += [entry.path for entry in os.scandir("/dev/shm") if entry.stat().st_ino in self.shared]
        return left + [f"port {port}" for port in self.ports if _accepts(port)]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


Begin = Callable[..., Trace]


@pytest.fixture
def begin(tmp_path: Path, start_command: StartCommand) -> Begin:
    """Start a command whose own temporary files go to an empty folder."""

    def begin(*arguments: str, **environment: str) -> Trace:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        return Trace(start_command(*arguments, TMPDIR=str(temporary), **environment), temporary)

    return begin


ENDLESS = {"num_steps": 100_000, "max_staleness": 1, "num_eval_prompts": 4}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle(
    tmp_path: Path, begin: Begin, write_config: WriteConfig, number: signal.Signals, status: int
) -> None:
    run = begin("train", str(write_config(training=ENDLESS, learner={"num_workers": 2})))
    run.note_until("step 2/")
    assert run.ports
    assert run.shared
    run.command.process.send_signal(number)
    assert run.command.finish(60.0) == status, run.command.output
    run.assert_nothing_left()
    assert "Traceback" not in run.command.output
    if number != signal.SIGKILL:
        assert f"stopped by {number.name}" in run.command.output
        (checkpoint,) = (tmp_path / "runs" / "run" / "checkpoints").iterdir()
        assert (checkpoint / "manifest.json").is_file()
    told = [event["text"] for event in read_events(tmp_path / "runs" / "run" / "events.jsonl")]
    assert any("the driver was killed" in text for text in told) is (number == signal.SIGKILL)
    (session,) = (tmp_path / "runs" / "run" / "logs").iterdir()
    assert [path for path in session.iterdir() if path.name.startswith("worker-")], "what the workers printed is kept"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_signal_during_the_start(
    begin: Begin, write_config: WriteConfig, number: signal.Signals, status: int
) -> None:
    run = begin("train", str(write_config(training=ENDLESS)))
    run.note_until_started(num_processes=8)
    run.command.process.send_signal(number)
    assert run.command.finish(60.0) == status, run.command.output
    run.assert_nothing_left()


def test_an_error(tmp_path: Path, begin: Begin, write_config: WriteConfig) -> None:
    (tmp_path / "my_reward.py").write_text(FAILS)
    reward = {"functions": [{"type": "my_reward:Broken"}], "max_error_frac": 0.7}
    training = {"num_steps": 100_000, "num_eval_prompts": 4}
    run = begin("train", str(write_config(reward=reward, training=training)), PYTHONHASHSEED="0")
    run.note_until("engine ready")
    assert run.command.finish(120.0) == 1, run.command.output
    assert "KeyError: 'no such thing'" in run.command.output
    assert "reward.max_error_frac" in run.command.output
    assert "Traceback" not in run.command.output
    run.assert_nothing_left()
    steps = read_metrics(tmp_path / "runs" / "run")
    assert [step["step"] for step in steps] == [1, 2]
    assert sum(step["reward/num_errors"] for step in steps) > 0, "failures that are few are counted"
    assert all(step["rollout/num_trajectories"] <= 16 for step in steps)
