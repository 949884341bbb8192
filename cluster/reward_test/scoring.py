"""Runs a reward on labelled lines, one call after the other, so that the times are those of single calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cluster.config.run_config import RunConfig
from cluster.reward_test.lines import LabelledLine, read_lines
from cluster.reward_test.report import Result, RewardTestReport
from rollout.component import ComponentSpec
from rollout.rewards.base import Reward
from rollout.rewards.function import build_reward
from rollout.rewards.model import Scorer
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
    specs: tuple[ComponentSpec, ...] = getattr(config.reward, group)
    rewards = [build_reward(spec, f"reward.{group}.{index}") for index, spec in enumerate(specs)]
    lines = read_lines(config, path)
    names = tuple(spec.type for spec in specs)
    results = asyncio.run(_score(config, group, lines, rewards))
    return RewardTestReport(str(path), f"reward.{group}", names, threshold, tuple(results))


async def _score(
    config: RunConfig, group: Literal["functions", "gold"], lines: Sequence[LabelledLine], rewards: Sequence[Reward]
) -> list[Result]:
    where, specs = f"reward.{group}", getattr(config.reward, group)
    scorers = _scorers(config, group) if "model" in {spec.type for spec in specs} else {}
    panel = RewardPanel(specs, where, config.reward, config.seed, RewardThreads(), scorers)
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


def _scorers(config: RunConfig, group: Literal["functions", "gold"]) -> Mapping[str, Scorer]:
    """The reward models of this group, in this process. Other rewards need no torch, which loads slowly."""
    from cluster.reward_model.local import local_scorers

    others = {"functions": "gold", "gold": "functions"}[group]
    return local_scorers(config.model_copy(update={"reward": config.reward.model_copy(update={others: ()})}))


def _read(rewards: Sequence[Reward], line: LabelledLine) -> str | None:
    """What the rewards that look for an answer take for it; several different readings together."""
    readings = (reward.read_answer(line.prompt, line.trajectory) for reward in rewards)
    found = dict.fromkeys(answer for answer in readings if answer is not None)
    return " | ".join(found) if found else None
