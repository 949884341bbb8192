"""What an update reports. No torch in here: the controller reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from learner.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTrace:
    """What an update knew of the tokens of one trajectory. Lists have one entry a token, from ``first`` on.

    Attributes:
        first: the first sampled token's place in the trajectory.
        num_left_out: tokens after the recorded ones.
        sampled: whether the policy sampled the token.
        advantages: as the policy's loss saw them; None for tokens that were not sampled.
        old, new: log-probability before and after the update, in nats; None where it was not computed.
        levels: of ``values``, ascending in (0, 1).
        values: [token head level] quantiles of the critic's value before the token; empty without a critic.
        corrected: the reward that corrections handed to the method; None without a correction.
    """

    first: int
    num_left_out: int
    sampled: tuple[bool, ...]
    advantages: tuple[float | None, ...]
    old: tuple[float | None, ...]
    new: tuple[float | None, ...]
    levels: tuple[float, ...]
    values: tuple[tuple[tuple[float, ...], ...] | None, ...]
    corrected: float | None


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What one update reports; the same on every rank.

    Attributes:
        metrics: merged over micro-batches and ranks.
        timings: seconds in the phases ``drift``, ``old``, ``estimate``, ``policy`` and ``critic``, of the slowest rank.
        skipped: why nothing at all was changed, neither weights nor optimisers nor the algorithm's scales; empty if at
            least one optimiser step was taken.
        notes: for each optimiser step that was not taken, or for all of them at once, where and why.
        traces: what was recorded of tokens, by trajectory; see :class:`learner.update.limits.TraceLimits`.
    """

    metrics: Metrics
    timings: dict[str, float]
    skipped: str = ""
    notes: tuple[str, ...] = ()
    traces: Mapping[str, TokenTrace] = field(default_factory=dict)
