"""Options of the guards: what is taken for a number gone wrong, and what is done about it. See docs/guards.md."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from learner.update.limits import UpdateLimits
from rollout.component import ComponentSpec, StrictModel

BeforeAction = Literal["off", "warn", "skip", "rollback", "stop"]
"""For what is known before the update: 'skip' leaves the batch out."""
AfterAction = Literal["off", "warn", "rollback", "stop"]
"""For what only shows after the update."""
_BEFORE = "What is done: 'off', 'warn', 'skip' (leaves the batch out), 'rollback' (to the newest checkpoint), 'stop'."
_AFTER = "What is done: 'off', 'warn', 'rollback' (to the newest checkpoint), 'stop'."


class NonFiniteGuard(StrictModel):
    """A reward, log-probability, estimate, loss or gradient that is NaN or infinite. It never reaches the weights."""

    action: Literal["skip", "rollback", "stop"] = Field(
        "skip", description="What is done beside leaving the optimiser step out: 'skip' nothing, 'rollback', 'stop'."
    )


class RewardGuard(StrictModel):
    """Observed rewards far outside of what the run has seen."""

    action: BeforeAction = Field("warn", description=_BEFORE)
    max_scales: float = Field(
        20.0, gt=0.0, description="A reward is far out if it is more than this many scales from the running median."
    )
    min_scale: float = Field(1.0, gt=0.0, description="Least scale, in reward units.")
    max_far_frac: float = Field(
        0.1,
        ge=0.0,
        lt=1.0,
        description="Largest share of a batch's rewards that may be far out (noise may have tails).",
    )
    max_abs: float | None = Field(
        None, gt=0.0, description="Largest absolute value of any reward, in reward units; null for no such limit."
    )


class MismatchGuard(StrictModel):
    """Log-probabilities of sampled tokens that differ between sampler and learner, at a percentile."""

    action: BeforeAction = Field("warn", description=_BEFORE)
    percentile: float = Field(0.99, gt=0.0, le=1.0, description="Which percentile of the differences is limited.")
    max_gap: float = Field(1.0, gt=0.0, description="Its limit over tokens sampled with the current weights, in nats.")
    max_stale_gap: float | None = Field(
        3.0, gt=0.0, description="Its limit over responses of older weights, in nats; null for none."
    )


class EntropyGuard(StrictModel):
    """Entropy of the policy that has collapsed."""

    action: AfterAction = Field("warn", description=_AFTER)
    min_frac: float = Field(
        0.02, ge=0.0, lt=1.0, description="Least mean token entropy as a share of that at the start of the run."
    )
    min_entropy: float | None = Field(
        None, gt=0.0, description="Least mean token entropy, in nats; null for no such limit."
    )


class LengthGuard(StrictModel):
    """Responses that have become very short, or are cut almost always."""

    action: AfterAction = Field("warn", description=_AFTER)
    min_frac: float = Field(
        0.25, ge=0.0, lt=1.0, description="Least mean response length as a share of its running median."
    )
    max_truncated_frac: float = Field(
        0.95, ge=0.0, le=1.0, description="Largest share of responses cut at max_response_tokens; 1 is no limit."
    )


class KlGuard(StrictModel):
    """A policy that has moved too far, in one update or since the start."""

    action: AfterAction = Field("warn", description=_AFTER)
    max_kl: float = Field(
        1.0, gt=0.0, description="Largest mean KL of the policy before an update to the one in it, in nats a token."
    )
    max_ref_kl: float | None = Field(
        10.0, gt=0.0, description="Largest mean KL to the starting policy, in nats a token; null for no such limit."
    )


class GuardsConfig(StrictModel):
    """Guards against numbers that go wrong."""

    nonfinite: NonFiniteGuard = Field(default_factory=NonFiniteGuard, description="NaN and infinity.")
    reward: RewardGuard = Field(default_factory=RewardGuard, description="Reward explosion.")
    mismatch: MismatchGuard = Field(default_factory=MismatchGuard, description="Sampler and learner disagree.")
    entropy: EntropyGuard = Field(default_factory=EntropyGuard, description="Entropy collapse.")
    length: LengthGuard = Field(default_factory=LengthGuard, description="Length collapse and blow-up.")
    kl: KlGuard = Field(default_factory=KlGuard, description="KL blow-up.")
    further: tuple[ComponentSpec, ...] = Field(
        (), description="Guards of your own: classes that derive from actors.guards.base.Guard, with their options."
    )
    max_consecutive_skips: int = Field(
        5, ge=1, le=1_000_000, description="Training steps in a row that may skip something; one more stops the run."
    )
    rollback_lr_factor: float = Field(
        0.5, gt=0.0, le=1.0, description="Factor on the learning rates with each return to a checkpoint."
    )
    max_rollbacks: int = Field(2, ge=0, le=1_000, description="Returns to a checkpoint in a run; one more stops it.")

    def update_limits(self) -> UpdateLimits:
        """What the learner needs to know. With 'warn' it measures the mismatch and goes on."""
        guard = self.mismatch
        if guard.action == "off":
            return UpdateLimits()
        if guard.action == "warn":
            return UpdateLimits(guard.percentile)
        stale = math.inf if guard.max_stale_gap is None else guard.max_stale_gap
        return UpdateLimits(guard.percentile, guard.max_gap, stale)
