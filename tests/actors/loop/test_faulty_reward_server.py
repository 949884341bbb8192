"""The loop, with a real reward service and a real server that fails: each trajectory is accounted for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.live_run import FaultTestError
from benchmarks.faults.remote_reward import account, reward_server
from rollout.component import ComponentSpec
from rollout.config import RewardConfig
from rollout.scoring.record import RewardRecord
from rollout.scoring.report import RewardCounts
from rollout.scoring.service import RewardService
from rollout.trajectory import Prompt
from tests.actors.loop.test_controller import FakeRewards, Run

NUM_STEPS, PROMPTS = 6, 32


class ServedRewards(FakeRewards):
    """Scores of a service in this process; evaluation does without."""

    def __init__(self, url: str) -> None:
        super().__init__()
        remote = ComponentSpec(type="remote", url=url, score_range=[0, 1], timeout_s=3.0, hedge_after_s=0.3)
        self.service = RewardService(RewardConfig(functions=(remote,), max_concurrent_requests=256), run_seed=0)
        self.scored: Counter[str] = Counter()
        self.counts, self.totals = RewardCounts(), Counter[str]()

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        record = await self.service.score(prompt, await trajectory)
        self.scored[f"{record.prompt_id}#{record.sample_index}"] += 1
        self.counts.add(record)
        return record

    def take_metrics(self) -> dict[str, float]:
        found = self.counts.take()
        self.totals.update({key: int(value) for key, value in found.items() if key.startswith("reward/num_")})
        return found


@pytest.mark.slow
async def test_each_trajectory_is_accounted_for(tmp_path: Path) -> None:
    with reward_server(tmp_path, latency_s=0.02, faults=True) as url:
        rewards = ServedRewards(url)
        run = Run(
            tmp_path,
            rewards,
            max_errors=PROMPTS,
            num_steps=NUM_STEPS,
            prompts_per_step=PROMPTS,
            samples_per_prompt=1,
            max_staleness=2,
            eval_every_steps=0,
        )
        try:
            async with asyncio.timeout(90):
                await run.controller.run()
        finally:
            await rewards.service.close()
    run.ledger.close()
    rewards.take_metrics()
    assert len(run.trained) == len(set(run.trained)) == NUM_STEPS * PROMPTS
    assert set(rewards.scored.values()) == {1}, "nothing is scored twice"
    log = tmp_path / "requests.jsonl"
    counts = account(tmp_path, log, num_calls=3)
    assert counts["trained"] == NUM_STEPS * PROMPTS
    dropped = sum(number for outcome, number in counts.items() if outcome.startswith("dropped: "))
    totals = rewards.totals
    assert totals["reward/num_scored"] + totals["reward/num_errors"] == sum(rewards.scored.values())
    assert (
        0
        < dropped
        <= totals["reward/num_errors"]
        == totals["reward/num_infrastructure_errors"] + (totals["reward/num_invalid_scores"])
    )
    assert counts["requests again"] >= 0.2 * len(rewards.scored)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:  # the check itself is one that can fail
        ledger.execute("UPDATE samples SET state = 'dropped', reason = 'lost' WHERE trajectory_id = ?", run.trained[:1])
    with pytest.raises(FaultTestError, match=f"1 trajectories are not accounted for, .*{run.trained[0]} is dropped"):
        account(tmp_path, log, num_calls=3)
