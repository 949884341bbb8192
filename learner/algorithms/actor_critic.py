"""Methods with a critic: GAE over a read-out of the critic, targets, and a loss that is composed of terms.

An update goes through the pieces like this: the *target* turns rewards and the old critic, seen through the *read-out*,
into advantages and into what the critic regresses to; each *term* compares the critic with that, token by token; each
*regulariser* constrains the critic's states. A method is a class with other defaults (``with_critic/``), and a new idea
is one piece (``critic/``), which may also live in a module of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from learner.algorithms.clipped_policy import ClippedPolicy
from learner.algorithms.critic.composition import CriticSide
from learner.algorithms.critic.config import ActorCriticConfig
from learner.algorithms.critic.evaluation import Evaluated, evaluate
from learner.algorithms.critic.short_keys import ShortKey, expand
from learner.algorithms.critic.targets.base import OldCritic
from learner.algorithms.critic.terms.base import BatchView
from learner.algorithms.critic.terms.running_scale import RunningScale
from learner.algorithms.invariance import MIXED, Answer
from learner.algorithms.records import Denominators, Estimates, LossOutput, OldOutputs
from learner.algorithms.streams import row_uniforms
from learner.batch import TrainBatch
from learner.maths.calibration import CriticFit
from learner.maths.collective import Collective
from learner.maths.returns import Lam, discounted_returns
from learner.models.kept_values import KeptOutput
from learner.models.spec import CriticConfig, CriticOutput, Place
from rollout.component import Component, ComponentSpec


class ActorCritic(ClippedPolicy):
    """Any composition of pieces. As it stands: one quantile critic, regressed to lambda-returns of its mean."""

    Config = ActorCriticConfig
    SHORT_KEYS: ClassVar[Mapping[str, ShortKey]] = {}
    """Option names that stand for options of pieces."""
    needs_critic = True

    @classmethod
    def expand(cls, options: Mapping[str, Any], written: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Short keys are put into the pieces that they belong to."""
        return expand(options, written, cls.SHORT_KEYS, cls.Config, cls.terms_for(options))

    @classmethod
    def terms_for(cls, options: Mapping[str, Any]) -> tuple[ComponentSpec, ...]:
        """Terms of the critic's loss where none are written; may depend on the other options."""
        terms: tuple[ComponentSpec, ...] = cls.Config.model_fields["terms"].default
        return terms

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.side = CriticSide(config)
        is_plain = type(self).estimate is ActorCritic.estimate and type(self).old_critic is ActorCritic.old_critic
        self.needs_old_heads = self.needs_old_values or self.side.target.needs_heads or not is_plain

    def pieces(self) -> dict[str, Sequence[Component]]:
        """Those of the critic's side too."""
        side = self.side
        single: dict[str, Sequence[Component]] = {"readout": [side.readout], "target": [side.target]}
        return {**super().pieces(), **single, "terms": side.terms, "regularisers": side.regularisers}

    @property
    def scale(self) -> RunningScale:
        """The running scale s of returns."""
        return self.side.scale

    @property
    def critic_config(self) -> CriticConfig:
        """The heads, and what the model has to have beside them."""
        return self.side.model_config

    @property
    def needs_end_values(self) -> bool:
        """Whether ``old.critic.end_values`` must be there."""
        return bool(self.config.bootstrap_truncated or self.side.target.needs_end_values)

    @property
    def needs_old_values(self) -> bool:
        """Whether the critic's loss looks at the old critic's output."""
        return any(term.needs_old_values for term in self.side.terms)

    @property
    def needs_contrast(self) -> bool:
        """Whether a term has a loss of responses behind other prompts."""
        return any(term.needs_contrast for term in self.side.terms)

    def advantage_answer(self) -> Answer:
        """That of the target. A shift ends unevenly where only some responses end in a value or are discounted."""
        if type(self).estimate is not ActorCritic.estimate:
            return Answer()
        found = self.side.target.answer()
        is_uneven = self.config.bootstrap_truncated or (self.config.gamma < 1.0 and not found.shift.taken_out_by)
        return replace(found, shift=MIXED) if is_uneven else found

    def bounds_of_steps(self) -> list[str]:
        """Also how far the critic's values go in an update, unless its latent moves them from step to step anyway."""
        is_clipped = any(getattr(term.config, "clip", None) is not None for term in self.side.terms)
        is_noisy = any("bottleneck_dim" in piece.model_options() for piece in self.side.regularisers)
        return [*super().bounds_of_steps(), *(["the critic's clip"] if is_clipped and not is_noisy else [])]

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """What the pieces ask of the model in training."""
        return {**super().critic_inputs(batch, estimates, step), **self.side.model_inputs(batch, estimates, step)}

    def ensemble(self, quantile_values: Tensor) -> Tensor:
        """Mean quantile function over heads, [... head M] -> [... M], detached."""
        values = quantile_values.detach()
        if self.config.critic.monotonicity == "none":
            values = values.sort(dim=-1).values
        return values.mean(dim=-2)

    def lam_actor(self, batch: TrainBatch) -> Lam:
        """Lambda of the advantages: ``lam_actor``, or one per row, [batch], with ``lam_actor_alpha``."""
        alpha = self.config.lam_actor_alpha
        return self.config.lam_actor if alpha is None else length_adaptive_lam(batch.action_mask, alpha)

    def bootstrap(self, critic: CriticOutput, batch: TrainBatch) -> Tensor | None:
        """[batch M] quantiles after the last action: the critic's where the response was cut, 0 where it ended."""
        if not self.config.bootstrap_truncated:
            return None
        if critic.end_values is None:
            raise ValueError("bootstrap_truncated needs the critic's end_values")
        return torch.where(batch.truncated[:, None], self.ensemble(critic.end_values), 0.0)

    def old_critic(self, rewards: Tensor, output: CriticOutput, batch: TrainBatch, world: Collective) -> OldCritic:
        """The critic before the update as the target sees it; ``rewards`` [batch seq]."""
        readout, quantiles, bootstrap = self.side.readout, self.ensemble(output.quantile_values), None
        bootstrap = self.bootstrap(output, batch)
        return OldCritic(
            rewards=rewards,
            batch=batch,
            output=output,
            quantiles=quantiles,
            values=readout(quantiles),
            bootstrap=bootstrap,
            last_values=None if bootstrap is None else readout(bootstrap),
            gamma=self.config.gamma,
            lam_actor=self.lam_actor(batch),
            ensemble=self.ensemble,
            read_out=readout,
            world=world,
        )

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Correct the rewards, evaluate them with the old critic, normalise the advantages."""
        if old.critic is None:
            raise ValueError(f"{type(self).__name__} needs the old critic's output")
        corrected = self.correct_rewards(batch, old, world)
        batch, mask, output = corrected.batch, corrected.batch.action_mask, old.critic
        rewards = self.token_rewards(corrected, old)
        returns = discounted_returns(rewards, mask, self.config.gamma)
        uniforms = row_uniforms(batch.sample_seeds, "coverage", mask.shape[1]).to(mask.device)
        fit = CriticFit(returns, mask, uniforms, output.num_quantiles, world)

        def see(place: Place) -> OldCritic:
            rows, part = batch.rows(place[0]).cut(place[1].stop), output.cut(place)
            return self.old_critic(rewards[place], part, rows, world)

        found = evaluate(self.side.target, output, see, batch, fit, world)
        advantages, metrics = self.normalise(found.advantages, mask, world)
        view = BatchView(batch, returns, found.value_means, found.target_means, self._whole(output, found))
        extra, prepared = self.side.prepare(view, old, world)
        keeps_old, kept = self.needs_old_values, output.kept if isinstance(output, KeptOutput) else None
        estimates = Estimates(
            advantages=advantages,
            value_targets=found.targets,
            old_values=output.quantile_values.detach() if keeps_old and kept is None else None,
            metrics=metrics | corrected.metrics | found.metrics | prepared,
            extra=extra | self.carried_weights(corrected),
            kept_targets=found.kept_targets,
            kept_old_values=kept if keeps_old else None,
        )
        return self.conclude(self.refine(estimates, output, batch, world), batch, old, world)

    def _whole(self, output: CriticOutput, found: Evaluated) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Quantiles [batch seq M] and targets [batch seq K] of all rows at once, for a piece that asks for them."""

        def targets() -> Tensor:
            if found.targets is not None:
                return found.targets
            assert found.kept_targets is not None
            return found.kept_targets.whole()

        return (lambda: self.ensemble(output.quantile_values)), targets

    def refine(self, estimates: Estimates, output: CriticOutput, batch: TrainBatch, world: Collective) -> Estimates:
        """What a method makes of the estimates once the old critic's ``output`` is known; here nothing.

        It must answer to a map of all rewards as the advantages do, or override :meth:`advantage_answer`.
        """
        return estimates

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """The terms, ``sum over action tokens / global number of action tokens``, and the regularisers."""
        return self.side.loss(output, batch, estimates, counts, self.progress)

    def contrast_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """The loss of responses behind other prompts."""
        return self.side.contrast_loss(output, batch, counts)

    def state_dict(self) -> dict[str, Any]:
        """The running scale, and what the base keeps."""
        return {**super().state_dict(), "scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them; a checkpoint of a method without a scale may have none."""
        super().load_state_dict(state)
        if "scale" in state:
            self.scale.load_state_dict(state["scale"])


def length_adaptive_lam(action_mask: Tensor, alpha: float) -> Tensor:
    """``lambda = 1 - 1 / (alpha * l)`` with l the row's sampled tokens, [batch] (VAPO, 2504.05118, alpha = 0.05).

    The weights lambda^k of the TD errors then sum to alpha * l. From the paper; responses of at most 1 / alpha tokens
    get 0 where the formula would be negative (our choice), and so does a row without sampled tokens. Nothing carries a
    gradient.
    """
    lengths = action_mask.sum(dim=1).double().clamp(min=1.0)
    return (1.0 - 1.0 / (alpha * lengths)).clamp(min=0.0)
