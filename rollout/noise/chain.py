"""Noise models applied one after another, each with a random stream of its own name."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.component.mistakes import Conflict
from rollout.noise.base import CriterionNoise, RewardNoise
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory, original_index


@dataclass(frozen=True, slots=True)
class NoisyScore:
    """What noise made of a clean score.

    Attributes:
        observed: the score that training sees, or None if it went missing.
        corrupted: the corruption mask: whether it differs from the clean one.
        delay_updates: weight updates by which it arrives late.
    """

    observed: float | None
    corrupted: bool
    delay_updates: int


class NoiseChain:
    """A list of noise models. The same trajectory gets the same observation in whichever process, in whichever order.

    Args:
        models: in the order in which they are applied.
        run_seed: first part of the name of every stream.
        samples_per_prompt: size of a group, needed by models whose draws a whole group shares.
        where: the list's place in the configuration, for messages.

    Raises:
        UserError: a model of single criteria follows one of the whole score.
        ValueError: a model shares draws within a group and ``samples_per_prompt`` is not given.
    """

    def __init__(
        self,
        models: Sequence[RewardNoise],
        run_seed: int,
        samples_per_prompt: int | None = None,
        where: str = "reward.noise",
    ) -> None:
        self._run_seed, self._samples_per_prompt = run_seed, samples_per_prompt
        self._criterion_models: list[tuple[int, CriterionNoise]] = []
        self._score_models: list[tuple[int, RewardNoise]] = []
        for index, model in enumerate(models):
            # The position in the configuration stays with each model: it names its random stream.
            if not (isinstance(model, CriterionNoise) and model.is_per_criterion):
                self._score_models.append((index, model))
            elif self._score_models:
                raise Conflict(
                    f"{where}.{index}: noise with 'unit: criterion' is put on each reward function's score before they "
                    f"are added; move it before {where}.{self._score_models[0][0]}, which is put on the sum"
                )
            else:
                self._criterion_models.append((index, model))
        if samples_per_prompt is None and any(model.shares_group_stream for model in models):
            raise ValueError("noise with 'unit: group' needs samples_per_prompt, to know which samples are one group")

    def observe(
        self, parts: Mapping[str, float], weights: Mapping[str, float], prompt: Prompt, trajectory: Trajectory
    ) -> NoisyScore:
        """Apply every model to one trajectory's clean score.

        Args:
            parts: clean score of each reward function by name.
            weights: its factor in the sum.

        Raises:
            ValueError: a model is not for such a score.
        """
        clean = sum(weights[name] * value for name, value in parts.items())
        noisy = dict(parts)
        # Criteria first, on the parts; what follows sees only their sum. The constructor refuses any other order.
        for index, flip in self._criterion_models:
            for name, value in noisy.items():
                rng = self._stream(index, flip, prompt, trajectory, f".{name}")
                noisy[name] = flip.observe_criterion(name, value, prompt, trajectory, rng)
        observed: float | None = sum(weights[name] * value for name, value in noisy.items())
        delay = 0
        for index, model in self._score_models:
            # A score that is missing has nothing left to change, and no later model may bring it back.
            if observed is None:
                break
            rng = self._stream(index, model, prompt, trajectory)
            # One stream for both: a model may tie its delay to what it drew for the score.
            observed = model(observed, prompt, trajectory, rng)
            delay += model.delay_updates(prompt, trajectory, rng)
        return NoisyScore(observed=observed, corrupted=observed != clean, delay_updates=delay)

    def _stream(
        self, index: int, model: RewardNoise, prompt: Prompt, trajectory: Trajectory, suffix: str = ""
    ) -> random.Random:
        if not model.shares_group_stream:
            return stream(self._run_seed, prompt.prompt_id, trajectory.sample_index, f"noise.{index}{suffix}")
        assert self._samples_per_prompt is not None  # checked on construction
        # Sample indices count over the whole run: a group is a block of them, and a replacement joins its original's.
        epoch = original_index(trajectory.sample_index) // self._samples_per_prompt
        return stream(self._run_seed, prompt.prompt_id, epoch, f"noise.{index}{suffix}.group")
