"""The terms of dvpo's critic loss by name: their weights, their metrics, and whether one compiled pass computes all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learner.maths.losses import compiled
from learner.metrics import Mean, Metrics

if TYPE_CHECKING:
    from learner.algorithms.with_critic.dvpo_config import DVPOConfig


def term_weights(config: DVPOConfig) -> dict[str, float]:
    """Weight of each term, Eq 3 to 10."""
    c = config
    weights = (1.0, c.risk_coef, c.cvar_coef, c.gain_coef, c.shift_coef, c.shape_coef, c.curvature_coef)
    return dict(zip(compiled.TERMS, (*weights, c.consistency_coef if c.critic.num_heads > 1 else 0.0), strict=True))


def compiled_form(config: DVPOConfig, scale: float, alpha: float, beta: float) -> compiled.CriticTerms | None:
    """What the compiled pass needs to know, or None where a term has a form that it does not compute."""
    c = config
    known = (
        c.critic.monotonicity != "none"
        and c.value_clip is None
        and (c.calibration == "ru" or not (c.cvar_coef or c.gain_coef))
        and (c.shift_form != "batch_hinge" or not c.shift_coef)
        and (c.shape_ref == "iqr" or not c.shape_coef)
    )
    if not known:
        return None
    return compiled.CriticTerms(
        coef=term_weights(c),
        scale=scale,
        kappa=c.huber_kappa,
        alpha=alpha,
        beta=beta,
        risk_eta=c.risk_eta,
        risk_direction=c.risk_direction,
        sides=c.tail_sides,
        shift_form="hinge" if c.shift_form == "hinge" else "squared",
        contract=c.shape_contract,
        expand=c.shape_expand,
        curvature_form=c.curvature_form,
        min_iqr=c.curvature_min_iqr,
    )


def term_metrics(terms: dict[str, tuple[float, float]], count: int) -> Metrics:
    """Each term's mean over tokens, and times its weight. terms: name -> weight and sum over tokens."""
    metrics: Metrics = {}
    for name, (coef, raw) in terms.items():
        metrics[f"critic/{name}"] = Mean(raw, float(count))
        metrics[f"critic/{name}_weighted"] = Mean(coef * raw, float(count))
    return metrics
