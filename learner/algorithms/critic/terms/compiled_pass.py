"""Whether one compiled pass computes all terms of a critic's loss, and with which arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from learner.algorithms.critic.terms.base import CriticTerm
from learner.maths.losses.compiled import TERMS, CriticTerms
from learner.models.spec import CriticConfig


def compiled_form(
    terms: Sequence[CriticTerm], critic: CriticConfig, scale: float, shares: tuple[float, float]
) -> CriticTerms | None:
    """The arguments of the compiled pass, or None where a term is unknown to it or has a form that it lacks.

    Args:
        shares: tail shares where no term says another.
    """
    names = [term.name for term in terms]
    if critic.monotonicity == "none" or len(set(names)) < len(names) or "quantile_huber" not in names:
        return None
    form: dict[str, Any] = {"coef": dict.fromkeys(TERMS, 0.0)}
    if not all(term.compile_into(form) for term in terms):
        return None
    rest: dict[str, Any] = {
        "alpha": shares[0],
        "beta": shares[1],
        "risk_eta": 1.0,
        "risk_direction": "lower",
        "sides": "two_sided",
        "shift_form": "squared",
        "contract": 1.0,
        "expand": 1.0,
        "curvature_form": "asymmetric",
        "min_iqr": 0.05,
    }
    return CriticTerms(scale=scale, **(rest | form))
