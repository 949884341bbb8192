"""What the estimators look at: responses with observed scores and, where there is one, a gold label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldPair:
    """One response with both scores.

    Attributes:
        prompt_id: responses to the same prompt are compared with each other.
        observed: the score of the reward under audit.
        gold: what it should have been.
        features: how the response looks, by name (see :mod:`rollout.audit.features`).
    """

    prompt_id: str
    observed: float
    gold: float
    features: dict[str, float] = field(default_factory=dict)


def is_binary(values: Sequence[float]) -> bool:
    """Whether every value is exactly 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)
