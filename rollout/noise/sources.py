"""Several sources of reward, each with errors of its own: annotators, judges, verifiers of several data sets."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import Any, Literal

from pydantic import Field

from rollout.component import ComponentSpec, StrictModel, build
from rollout.component.mistakes import Conflict
from rollout.noise import NOISES
from rollout.noise.base import CriterionNoise, RewardNoise
from rollout.noise.delay import Delay
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory


class Source(StrictModel):
    """One of them."""

    share: float = Field(gt=0.0, description="Its part of the prompts (or responses), relative to the others'.")
    noise: tuple[ComponentSpec, ...] = Field(
        (), description="Its noise models, applied in this order; each has a 'type'. None: it is right."
    )


class Sources(RewardNoise):
    """Each prompt, or each response, is judged by one of several sources, drawn by their shares.

    Error rates that are one number for the whole reward are a mean of these, right for none of them. Source: rates per
    annotator are a standard model of crowds, no paper's own; arXiv 2510.18924 has rates per prompt.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        sources: tuple[Source, ...] = Field(min_length=2, description="At least two, each with 'share' and 'noise'.")
        unit: Literal["prompt", "response"] = Field(
            "prompt",
            description="Whether a prompt keeps its source, in every run with this seed, or each response draws one.",
        )
        seed: int = Field(0, description="Seed of which prompt has which source; the run's seed does not enter.")

    config: Sources.Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._bounds = list(accumulate(source.share for source in config.sources))
        self._models: list[list[RewardNoise]] = [
            [build(spec, NOISES, RewardNoise, f"sources.{i}.noise.{j}") for j, spec in enumerate(source.noise)]
            for i, source in enumerate(config.sources)
        ]
        for i, models in enumerate(self._models):
            for j, model in enumerate(models):
                if model.shares_group_stream or (isinstance(model, CriterionNoise) and model.is_per_criterion):
                    raise Conflict(
                        f"sources.{i}.noise.{j}: a source judges responses one by one, so 'unit' must be 'rollout' (or "
                        "'memory' 'persistent', for errors that stay with a prompt)"
                    )
                if isinstance(model, Delay):
                    raise Conflict(f"sources.{i}.noise.{j}: delay is of all scores; put it into reward.noise itself")

    def source_of(self, prompt: Prompt, trajectory: Trajectory) -> int:
        """Which source judges a response: its place in the list."""
        sample = trajectory.sample_index if self.config.unit == "response" else 0
        draw = stream(self.config.seed, prompt.prompt_id, sample, "noise.sources").random() * self._bounds[-1]
        return next(place for place, bound in enumerate(self._bounds) if draw < bound)

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float | None:
        """What the response's source says."""
        observed: float | None = reward
        for model in self._models[self.source_of(prompt, trajectory)]:
            if observed is None:
                break
            observed = model(observed, prompt, trajectory, rng)
        return observed
