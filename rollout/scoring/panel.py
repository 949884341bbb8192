"""Several reward functions as one: each is called, and their scores are added up by weight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rollout.component import ComponentSpec
from rollout.config import RewardConfig
from rollout.rewards.function import build_reward
from rollout.rewards.model import ModelReward, Scorer
from rollout.scoring.caller import GuardedReward, Part
from rollout.scoring.record import RewardRecord
from rollout.scoring.threads import RewardThreads
from rollout.trajectory import Prompt, Trajectory


class RewardPanel:
    """Calls of all reward functions of one list of the configuration.

    Args:
        specs: the functions.
        where: the list's place in the configuration, such as ``reward.functions``.
        config: time-out and retries.
        run_seed: names the random streams of the pauses before retries.
        threads: where a plain ``def`` runs.
        scorers: by place, such as ``reward.functions.0``: what answers for each reward model.

    Raises:
        UserError: there is no such reward, or an option is wrong.
        KeyError: a reward model has no scorer.
    """

    def __init__(
        self,
        specs: Sequence[ComponentSpec],
        where: str,
        config: RewardConfig,
        run_seed: int,
        threads: RewardThreads,
        scorers: Mapping[str, Scorer],
    ) -> None:
        self._callers: list[GuardedReward] = []
        for index, spec in enumerate(specs):
            reward = build_reward(spec, f"{where}.{index}")
            if isinstance(reward, ModelReward):
                reward.bind(scorers[f"{where}.{index}"])
            # Names are keys of the parts: a second reward of one type is told apart by its place.
            taken = {caller.name for caller in self._callers}
            name = spec.type if spec.type not in taken else f"{spec.type}.{index}"
            self._callers.append(GuardedReward(name, reward, config, run_seed, threads))

    @property
    def weights(self) -> dict[str, float]:
        """Each function's factor in the sum, by name."""
        return {caller.name: caller.reward.config.weight for caller in self._callers}

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """One record of what all functions said: a failure comes before an abstention, and that before a score.

        Its ``observed`` and ``clean`` are both the sum, or None if there is none.
        """
        # All are asked even if one has failed: the parts that do score are reported.
        parts = await asyncio.gather(*(caller(prompt, trajectory) for caller in self._callers))
        return self._combined(parts, trajectory)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        """Keys of all functions together, or None if one of them looks at more than an answer."""
        keys = [caller.reward.answer_key(prompt, trajectory) for caller in self._callers]
        return None if None in keys else "\x1f".join(key for key in keys if key is not None)

    async def close(self) -> None:
        """Let the functions give up their connections and processes."""
        for caller in self._callers:
            await caller.reward.close()

    def _combined(self, parts: Sequence[Part], trajectory: Trajectory) -> RewardRecord:
        scores = {
            caller.name: part.score for caller, part in zip(self._callers, parts, strict=True) if part.score is not None
        }
        # A failure comes before an abstention: it counts towards reward.max_error_frac whatever the others say.
        failed = next((part for part in parts if part.error_kind is not None), None)
        abstained = next((part.abstained for part in parts if part.abstained is not None), None)
        if failed is not None:
            record = RewardRecord.failed(trajectory, failed.error, failed.error_kind)
        elif abstained is not None:
            record = RewardRecord.abstained(trajectory, abstained)
        else:
            total = sum(weight * scores[name] for name, weight in self.weights.items())
            record = RewardRecord.scored(trajectory, total)
        return replace(
            record,
            parts=scores,
            num_retries=sum(part.num_retries for part in parts),
            cached=any(part.cached for part in parts),
        )
