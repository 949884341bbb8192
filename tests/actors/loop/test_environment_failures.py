"""The loop on fakes when environments fail: trajectories are dropped and counted, and too many end the run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.faults import TooManyRewardErrors
from actors.loop.evaluation import evaluate
from rollout.trajectory import Outcome, Prompt, SampleRequest, Trajectory, TrajectorySummary
from tests.actors.loop.test_controller import FakePool, FakeRewards, Run, trajectory_of


class FailingPool(FakePool):
    """Environments of some prompts fail; those of the others tell a number."""

    def __init__(self, failing: Sequence[str]) -> None:
        super().__init__()
        self.failing = failing

    def played(self, request: SampleRequest) -> Trajectory:
        if request.prompt.prompt_id in self.failing:
            return Trajectory.failed(request, "step: OSError: gone")
        trajectory = trajectory_of(request, self.version)
        object.__setattr__(trajectory, "outcome", Outcome({"turns": float(request.sample_index)}))
        return trajectory

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Any]:
        trajectory = self.played(request)
        future: asyncio.Future[Trajectory] = asyncio.get_running_loop().create_future()
        future.set_result(trajectory)
        return TrajectorySummary.of(trajectory), future

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        return self.played(request)


async def test_failed_trajectories_are_dropped_counted_and_told(tmp_path: Path) -> None:
    run = Run(tmp_path, pool=FailingPool(["p1"]), num_steps=2)
    await run.controller.run()
    assert [len(batch) for batch in run.learner.batches] == [3, 3]
    assert not [name for name in run.trained if name.startswith("p1#")]
    assert ("environment", "environment failed on prompt p1, sample 0: step: OSError: gone") in run.told
    rows = [row for _, row in run.sink.rows if "rollout/environment_failures" in row]
    assert sum(row["rollout/environment_failures"] for row in rows) >= 2
    assert all(row["environment/turns"] == pytest.approx(0.5) for row in rows[:1])  # samples 0 and 1 of each prompt
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        ((dropped,),) = db.execute("SELECT COUNT(*) FROM samples WHERE reason = 'the environment failed'").fetchall()
    assert dropped >= 2


async def test_too_many_failed_environments_end_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, pool=FailingPool([f"p{i}" for i in range(5)]))
    text = r"the environment failed on 6 trajectories.*reward\.max_error_frac allows 5.*OSError: gone"
    with pytest.raises(TooManyRewardErrors, match=text):
        await run.controller.run()
    assert run.learner.batches == []


async def test_a_failed_evaluation_is_told_and_left_out() -> None:
    warnings: list[str] = []
    prompts = {
        "test": [Prompt(prompt_id=f"p{i}", messages=(), token_ids=(1, 2), reference="r", task="t") for i in range(3)]
    }
    found = await evaluate(FailingPool(["p1"]), FakeRewards(), prompts, warnings.append)  # type: ignore[arg-type]
    assert found == {"test": {"accuracy": 0.5, "truncated_frac": 0.0, "turns": 0.0}}
    (warning,) = warnings
    assert "1 of 3 answers have no score" in warning and "environment: step: OSError: gone" in warning
