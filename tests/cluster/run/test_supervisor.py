"""How long the supervisor waits before it starts another controller beside one of which it hears nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from actors.faults import ControllerLost, DataLost, Fault, LearnerLost, RollbackRequested, Stalled, WorkerDied
from actors.processes.lease import Lease
from actors.recording.event_log import read_events
from cluster.config.run_config import RunConfig
from cluster.display.progress import make_progress
from cluster.run.signals import Interrupted, SignalFlag
from cluster.run.supervisor import Supervisor, _is_elsewhere

LEASE_S = 0.3


def supervisor(folder: Path, signals: SignalFlag, lease: Lease | None) -> Supervisor:
    config = RunConfig.model_validate({"model": {"path": "m"}, "recovery": {"controller_lease_s": LEASE_S}})
    nobody: Any = None
    made = Supervisor(config, folder, nobody, make_progress("none"), signals)
    made._lease = lease
    return made


@pytest.mark.parametrize("fault", [ControllerLost("lost"), Stalled("silent")])
def test_one_on_another_host_gets_the_time_to_stop_by_itself(tmp_path: Path, fault: Fault) -> None:
    begin = time.monotonic()
    waiting = supervisor(tmp_path, SignalFlag(), Lease(LEASE_S))
    waiting._wait_for_the_lease(fault)
    assert time.monotonic() - begin >= LEASE_S
    (event,) = read_events(tmp_path / "events.jsonl")
    assert f"{fault}; in case it is only cut off, it has 0 s to stop by itself" in event["text"]


def test_nobody_waits_for_one_that_is_known_to_have_ended(tmp_path: Path) -> None:
    begin = time.monotonic()
    long = Lease(1000.0)
    over = Lease(1.0, iter([0.0, 2.0, 3.0, 4.0]).__next__)
    supervisor(tmp_path, SignalFlag(), None)._wait_for_the_lease(ControllerLost("beside the driver"))
    supervisor(tmp_path, SignalFlag(), long)._wait_for_the_lease(LearnerLost("the controller has said so"))
    supervisor(tmp_path, SignalFlag(), over)._wait_for_the_lease(ControllerLost("long ago"))
    assert time.monotonic() - begin < 100.0
    assert not (tmp_path / "events.jsonl").exists()


def test_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    signals = SignalFlag()
    signals.received = 2
    with pytest.raises(Interrupted):
        supervisor(tmp_path, signals, Lease(1000.0))._wait_for_the_lease(ControllerLost("lost"))


@pytest.mark.parametrize(
    ("fault", "is_kept"),
    [
        (LearnerLost("learner-0"), True),
        (RollbackRequested("loss"), True),
        (DataLost("learner-0", "train", "why"), True),
        (WorkerDied("learner-1", "setup", "why"), True),
        (WorkerDied("controller", "prepare", "why"), False),
        (ControllerLost("lost"), False),
        (Stalled("nothing moves"), False),
    ],
)
def test_a_controller_stays_where_the_fault_is_another_s(fault: Fault, is_kept: bool) -> None:
    assert _is_elsewhere(fault) is is_kept
