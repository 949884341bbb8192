"""However a run ends, nothing of it stays: no process, port, shared memory or temporary file.

SIGTERM ends the run of three kills in test_faults.py; SIGKILL in the middle is in test_study.py, where the run goes on.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from actors.recording.event_log import read_events
from tests.integration.traces import Begin
from tests.integration.whole_runs import WriteConfig, read_metrics

pytestmark = pytest.mark.slow

EXPLODES = (
    "from rollout.rewards.base import Reward\n"
    "class Exploding(Reward):\n"
    "    async def __call__(self, prompt, trajectory):\n"
    "        if hash(prompt.prompt_id + str(trajectory.sample_index)) % 100 < 20:\n"
    "            raise KeyError('no such thing')\n"
    "        return 1e6 if trajectory.policy_version_min >= 3 else 1.0\n"
)
"""Now and then it fails; later its scores are far too large."""
ENDLESS = {"num_steps": 100_000, "max_staleness": 1, "num_eval_prompts": 4}


def test_ctrl_c_in_the_middle(tmp_path: Path, begin: Begin, write_config: WriteConfig) -> None:
    run = begin("train", str(write_config(training=ENDLESS, learner={"num_workers": 2})))
    run.note_until("step 2/")
    assert run.ports
    assert run.shared
    run.command.process.send_signal(signal.SIGINT)
    assert run.command.finish(60.0) == 130, run.command.output
    run.assert_nothing_left()
    assert "Traceback" not in run.command.output
    assert "stopped by SIGINT" in run.command.output
    (checkpoint,) = (tmp_path / "runs" / "run" / "checkpoints").iterdir()
    assert (checkpoint / "manifest.json").is_file()
    told = [event["text"] for event in read_events(tmp_path / "runs" / "run" / "events.jsonl")]
    assert not any("the driver was killed" in text for text in told)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_signal_during_the_start(
    begin: Begin, write_config: WriteConfig, number: signal.Signals, status: int
) -> None:
    run = begin("train", str(write_config(training=ENDLESS)))
    run.note_until_started(num_processes=8)
    run.command.process.send_signal(number)
    assert run.command.finish(60.0) == status, run.command.output
    run.assert_nothing_left()


def test_a_guard_takes_the_run_back_with_smaller_learning_rates_and_then_gives_up(
    tmp_path: Path, begin: Begin, write_config: WriteConfig
) -> None:
    """An error is an end like the others; until then some scores fail, which is allowed and counted."""
    (tmp_path / "my_reward.py").write_text(EXPLODES)
    config = write_config(
        reward={"functions": [{"type": "my_reward:Exploding"}], "max_error_frac": 0.7},
        guards={"reward": {"action": "rollback", "max_abs": 100.0}, "max_rollbacks": 1},
        training={"num_steps": 100_000, "num_eval_prompts": 4, "checkpoint_every_steps": 2},
    )
    run = begin("train", str(config), PYTHONHASHSEED="0")
    run.note_until("engine ready")
    assert run.command.finish(180.0) == 1, run.command.output
    run.assert_nothing_left()
    assert "given up after 1 rollbacks (guards.max_rollbacks)" in run.command.output
    assert "Traceback" not in run.command.output
    events = read_events(tmp_path / "runs" / "run" / "events.jsonl")
    found = [event for event in events if event.get("guard") == "reward"]
    assert [(event["step"], event["action"], event["value"]) for event in found] == [(3, "rollback", 1e6)] * 2
    assert [event["text"] for event in events if event["kind"] == "rollback"] == [
        "learning rates are multiplied by 0.5 from here on"
    ]
    steps = read_metrics(tmp_path / "runs" / "run")
    assert [step["step"] for step in steps] == [1, 2, 3]
    rates = [step["policy/lr"] for step in steps]
    warming_up = [rates[0], 2 * rates[0], 0.5 * 3 * rates[0]]
    assert rates == pytest.approx(warming_up), "step 3 was done again after going back to step 2"
    assert sum(step["reward/num_errors"] for step in steps) > 0, "failures that are few are counted"
    assert all(step["rollout/num_trajectories"] <= 16 for step in steps)
