"""What an algorithm is: reward shaping, estimation, a policy loss and a critic loss, composed of pure functions.

One update goes through an algorithm like this (``learner/update/`` drives it, on every rank, on that rank's rows):

1. the engine computes ``old_logprobs``, and where asked for ``ref_logprobs`` and the old critic's ``QuantileValues``;
2. :meth:`Algorithm.estimate` turns rewards and old values into advantages and detached value targets, once;
3. for each micro-batch :meth:`Algorithm.policy_loss` and :meth:`Algorithm.critic_loss` give losses that are divided by
   *global* counts, so that their sum over micro-batches and ranks is the loss of the whole batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.order import check_fit, check_order, left_of_maps
from learner.algorithms.invariance import Answer, without_trace
from learner.algorithms.records import CorrectedRewards, Denominators, Estimates, LossOutput, OldOutputs, PolicyInputs
from learner.batch import TrainBatch
from learner.maths.collective import Collective, apply_globally
from learner.models.spec import CriticConfig, CriticOutput
from rollout.component import Component, ComponentSpec, StrictModel, build
from rollout.component.mistakes import WithoutEffect
from rollout.trajectory import ScoredTrajectory

__all__ = ["Algorithm", "AlgorithmConfig", "Collective", "Estimates", "NoEffect", "OldOutputs", "apply_globally"]
__all__ += ["specs_of", "without_effect"]
"""What a class of one's own needs; ``examples/my_algo.py`` uses it so."""


class NoEffect(WithoutEffect):
    """An option differs from its default although nothing reads it.

    Attributes:
        option: its name.
    """

    def __init__(self, option: str, why: str) -> None:
        super().__init__(f"algorithm.{option} has no effect {why}; leave it out")
        self.option = option


def without_effect(config: BaseModel, names: Sequence[str], why: str) -> None:
    """Refuse options that differ from their default although nothing reads them, by :class:`NoEffect`.

    :func:`.catalogue.build_algorithm` takes no notice of what only the preset set.
    """
    for name in names:
        if getattr(config, name) != type(config).model_fields[name].default:
            raise NoEffect(name, why)


def specs_of(value: Any) -> Any:
    """A list of components as written: a plain name stands for one with its default options, one alone for a list."""
    entries = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(entries, Sequence):
        return entries
    return tuple({"type": entry} if isinstance(entry, str) else entry for entry in entries)


class AlgorithmConfig(StrictModel):
    """Options every algorithm has."""

    num_epochs: int = Field(1, ge=1, le=64, description="Passes over each batch.")
    num_minibatches: int = Field(
        1, ge=1, le=1024, description="Optimiser steps per pass; trajectories are split evenly."
    )
    kl_coef: float = Field(0.0, ge=0.0, description="Weight of the KL penalty towards the frozen starting policy.")
    kl_mode: Literal["reward", "loss"] = Field(
        "loss",
        description="'reward': k1 estimate subtracted from token rewards; 'loss': an estimate added to the loss.",
    )
    entropy_coef: float = Field(0.0, description="Weight of the mean token entropy that is added as a bonus.")
    entropy_coef_late: float | None = Field(
        None, description="That weight in the last part of training (2511.07738: negative there); null for no change."
    )
    entropy_switch_frac: float = Field(
        0.8, ge=0.0, le=1.0, description="Share of the updates after which entropy_coef_late takes over."
    )
    reward_correction: tuple[ComponentSpec, ...] = Field(
        (),
        description="Corrections of the observed reward, applied in this order before estimation; each has a 'type'.",
    )

    @field_validator("reward_correction", mode="before")
    @classmethod
    def _names_are_types(cls, value: Any) -> Any:
        return specs_of(value)


class Algorithm:
    """Base of every algorithm. Stateless but for running scales, which :meth:`state_dict` carries.

    Subclasses set ``needs_critic`` and, with one, a ``critic`` field of :class:`CriticConfig` in ``Config``. Those that
    keep state extend :meth:`state_dict` and :meth:`load_state_dict` and call the ones here.
    """

    Config: type[AlgorithmConfig] = AlgorithmConfig
    needs_critic: bool = False
    progress: float = 0.0
    """Share of the run's updates that is done, in [0, 1]; for schedules."""
    objective: Component | None = None
    """What option ``policy_objective`` names, for algorithms that have it (``objectives/base.py``)."""
    corrected_scores: Any = None
    """[batch] rewards of this rank that corrections made, of the newest estimation; for records only."""
    min_samples_per_prompt: int = 1
    """Fewest samples of one prompt that give a signal; 2 for methods that compare them."""
    min_prompts: int = 1
    """Fewest prompts in a step for which it is itself; more than 1 for methods that compare prompts."""
    needs_old_heads: bool = True
    """Whether the old critic is wanted head by head; else the learner keeps the mean of sorted heads, as one head."""
    reads_verdicts: bool = False
    """Whether it takes scores for a verifier's own 0 or 1, so that no correction may change them."""

    masked_prompt_share: float | None = None
    """Share of the prompt's tokens that ``old.masked_logprobs`` are to be without; None: they are not needed."""

    @classmethod
    def expand(cls, options: Mapping[str, Any], written: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Options as ``Config`` takes them, and for messages the path of each that was written under another one.

        Args:
            options: of the preset, and what the user wrote on top.
            written: those that the user wrote.
        """
        return dict(options), {}

    def __init__(self, config: Any) -> None:
        self.config = config
        if config.entropy_coef_late is None:
            without_effect(config, ("entropy_switch_frac",), "without entropy_coef_late")
        if config.kl_coef == 0.0:
            without_effect(config, ("kl_mode",), "with kl_coef 0")
        self.corrections: list[RewardCorrection] = [
            build(spec, CORRECTIONS, RewardCorrection, f"algorithm.reward_correction.{index}")
            for index, spec in enumerate(config.reward_correction)
        ]
        names = [spec.type for spec in config.reward_correction]
        check_order(names, self.corrections)
        check_fit(self, names, self.corrections)

    def pieces(self) -> dict[str, Sequence[Component]]:
        """The components that it is made of, by the option that names them, in the order in which they are written."""
        found: dict[str, Sequence[Component]] = {"reward_correction": self.corrections}
        return found if self.objective is None else {**found, "policy_objective": [self.objective]}

    def answer(self) -> Answer:
        """How its update, with a critic that has learned such rewards, answers when they are all mapped alike."""
        return Answer()

    def remarks(self) -> list[str]:
        """What is configured and changes nothing, one sentence each that starts with the place in the configuration."""
        maps = left_of_maps([spec.type for spec in self.config.reward_correction], self.corrections)
        return without_trace(maps, self.answer())

    # --- the run: what the learner tells and asks --------------------------------------------------------------

    @property
    def takes_estimated_rates(self) -> bool:
        """Whether it, or a correction of its, uses error rates of the reward that the run estimates."""
        return any(correction.takes_estimated_rates for correction in self.corrections)

    @property
    def reads_gold(self) -> bool:
        """Whether it, or a correction of its, uses true scores of the trajectories in ``reward.gold_labels``."""
        return any(correction.reads_gold for correction in self.corrections)

    def set_rates(self, false_positive_rate: float, false_negative_rate: float) -> None:
        """The reward's error rates, as estimated before this update; the same on every rank."""
        for correction in self.corrections:
            if correction.takes_estimated_rates:
                correction.set_rates(false_positive_rate, false_negative_rate)

    def begin_update(self, update_index: int, num_updates: int) -> None:
        """The learner starts update ``update_index`` (from 0) of ``num_updates``."""
        self.progress = min(1.0, update_index / max(1, num_updates))

    def end_step(self, taken: bool) -> None:
        """All losses of one optimiser step have been computed; ``taken``: the step was taken, else it was refused."""

    def end_update(self, world: Collective, num_steps: int) -> None:
        """The learner has done ``num_steps`` optimiser steps, at least one, in an update. Every rank calls it."""

    def select(self, samples: Sequence[ScoredTrajectory], update_index: int) -> Sequence[ScoredTrajectory]:
        """What to train on: fresh samples that corrections select, in order, then what the algorithm replays.

        Every rank calls it with the same global batch and must return the same.
        """
        for correction in self.corrections:
            samples = correction.select(samples)
        return samples

    def critic_only_updates(self, num_updates: int) -> int:
        """First updates of the run in which the policy stays as it is, beside ``learner.critic_warmup_steps``."""
        return 0

    def critic_frozen_from(self, num_updates: int) -> int | None:
        """Update from which on the critic stays as it is, or None for never."""
        return None

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Further arguments of the critic's forward pass in training (not in the pass before the update).

        Args:
            estimates: of the micro-batch; None for a placeholder, a row without sampled tokens. It must run the same
                modules and give outputs of the same names, or ranks wait for each other for ever under ZeRO-3.
            step: optimiser steps of the critic so far, the same on every rank.
        """
        return {}

    # --- what is needed -----------------------------------------------------------------------------------------

    @property
    def entropy_coef(self) -> float:
        """Weight of the entropy bonus in this update; two stages where ``entropy_coef_late`` is set (2511.07738)."""
        late = self.config.entropy_coef_late
        if late is not None and self.progress >= self.config.entropy_switch_frac:
            return float(late)
        return float(self.config.entropy_coef)

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the frozen starting policy are needed."""
        return bool(self.config.kl_coef > 0.0) or self.estimates_with_reference

    @property
    def estimates_with_reference(self) -> bool:
        """Whether :meth:`estimate` reads what the frozen starting policy says."""
        in_reward = self.config.kl_coef > 0.0 and self.config.kl_mode == "reward"
        return in_reward or any(correction.needs_reference for correction in self.corrections)

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether :meth:`estimate` reads ``old.logprobs``.

        If not, an update of one optimiser step saves a forward pass: estimation gets NaN, and the policy loss
        ``logprobs.detach()``, the same number.
        """
        return bool(self.config.kl_coef > 0.0 and self.config.kl_mode == "reward")

    @property
    def needs_end_values(self) -> bool:
        """Whether ``old.critic.end_values`` must be there, [batch head quantile], after each row's last token."""
        return False

    @property
    def needs_contrast(self) -> bool:
        """Whether the critic also trains on :meth:`contrast_loss`, of responses put behind other prompts."""
        return False

    @property
    def needs_entropy(self) -> bool:
        """Whether the policy loss uses the token entropy with its gradient."""
        return bool(self.config.entropy_coef != 0.0 or self.config.entropy_coef_late)

    @property
    def critic_config(self) -> CriticConfig | None:
        """Shape of the critic, or None."""
        return self.config.critic if self.needs_critic else None

    def correct_rewards(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Apply the configured corrections, in order. Call it first in :meth:`estimate` and use what it returns."""
        weights = batch.loss_weights if bool((batch.loss_weights != 1.0).any()) else None
        current = CorrectedRewards(batch, weights, weights)
        for correction in self.corrections:
            current = correction(current, old, world)
        self.corrected_scores = current.batch.scores
        return current

    @abstractmethod
    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages and value targets of this rank's rows; statistics are taken over all ranks."""

    @abstractmethod
    def policy_loss(self, inputs: PolicyInputs, estimates: Estimates, counts: Denominators) -> LossOutput:
        """Policy loss of one micro-batch."""

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """Critic loss of one micro-batch."""
        raise NotImplementedError(f"{type(self).__name__} has no critic")

    def contrast_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """Critic loss of one micro-batch of responses put behind other prompts (:mod:`learner.update.contrast`)."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of mismatched responses")

    def state_dict(self) -> dict[str, Any]:
        """Running scales, for the checkpoint."""
        return {"corrections": [correction.state_dict() for correction in self.corrections]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running scales."""
        for correction, saved in zip(self.corrections, state.get("corrections", []), strict=True):
            correction.load_state_dict(saved)
