"""Runs a reward on labelled lines, one call after the other, so that the times are those of single calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cluster.config.components import build_rewards
from cluster.config.run_config import RunConfig
from cluster.reward_model.local import local_scorers
from cluster.reward_test.lines import LabelledLine, read_lines
from cluster.reward_test.report import Result, RewardTestReport
from rollout.rewards.base import Reward
from rollout.scoring.panel import RewardPanel
from rollout.scoring.threads import RewardThreads


def run_reward_test(
    config: RunConfig, path: Path, group: Literal["functions", "gold"], threshold: float
) -> RewardTestReport:
    """Score every line and compare the verdicts with the labels.

    Args:
        path: see :func:`cluster.reward_test.lines.read_lines`.
        group: which rewards of the configuration; several count by their weighted sum, as in training. No noise.
        threshold: least score that says that a response is right.

    Raises:
        UserError: a wrong reward, or unreadable lines.
    """
    rewards = build_rewards(config, group)
    lines = read_lines(config, path)
    names = tuple(spec.type for spec in getattr(config.reward, group))
    results = asyncio.run(_score(config, group, lines, rewards))
    return RewardTestReport(str(path), f"reward.{group}", names, threshold, tuple(results))


async def _score(
    config: RunConfig, group: Literal["functions", "gold"], lines: Sequence[LabelledLine], rewards: Sequence[Reward]
) -> list[Result]:
    where, specs = f"reward.{group}", getattr(config.reward, group)
    panel = RewardPanel(specs, where, config.reward, config.seed, RewardThreads(), local_scorers(config))
    results = []
    try:
        for line in lines:
            began = time.perf_counter()
            record = await panel(line.prompt, line.trajectory)
            seconds = time.perf_counter() - began
            outcome = "" if record.clean is not None else record.outcome.value
            read = _read(rewards, line)
            results.append(Result(line, record.clean, outcome, record.error, seconds, read))
    finally:
        await panel.close()
        for reward in rewards:
            await reward.close()
    return results


def _read(rewards: Sequence[Reward], line: LabelledLine) -> str | None:
    """What the rewards that look for an answer take for it; several different readings together."""
    readings = (reward.read_answer(line.prompt, line.trajectory) for reward in rewards)
    found = dict.fromkeys(answer for answer in readings if answer is not None)
    return " | ".join(found) if found else None
