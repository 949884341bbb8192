"""Summands of the critic's loss, by name; ``base.CriticTerm`` says what one is."""

from __future__ import annotations

TERMS: dict[str, str] = {
    "squared": "learner.algorithms.critic.terms.squared:Squared",
    "asymmetric_squared": "learner.algorithms.critic.terms.squared:AsymmetricSquared",
    "cross_entropy": "learner.algorithms.critic.terms.cross_entropy:CrossEntropy",
    "quantile_huber": "learner.algorithms.critic.terms.quantile_huber:QuantileHuber",
    "risk_huber": "learner.algorithms.critic.terms.quantile_huber:RiskHuber",
    "point_huber": "learner.algorithms.critic.terms.quantile_huber:PointHuber",
    "flow": "learner.algorithms.critic.terms.flow:FlowMatching",
    "lower_cvar": "learner.algorithms.critic.terms.tails:LowerCVaR",
    "upper_gain": "learner.algorithms.critic.terms.tails:UpperGain",
    "mean_shift": "learner.algorithms.critic.terms.tails:MeanShift",
    "tail_shape": "learner.algorithms.critic.terms.tails:TailShape",
    "tail_curvature": "learner.algorithms.critic.terms.tails:TailCurvature",
    "head_consistency": "learner.algorithms.critic.terms.consistency:HeadConsistency",
    "contrast": "learner.algorithms.critic.terms.contrast:Contrast",
    "end_value": "learner.algorithms.critic.terms.end_value:EndValue",
}
"""Type name -> ``module:Class``."""
