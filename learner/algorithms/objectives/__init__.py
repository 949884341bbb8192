"""What may take the place of the clipped surrogate, by name; ``base.PolicyObjective`` says what one is."""

from __future__ import annotations

OBJECTIVES: dict[str, str] = {
    "bapo": "learner.algorithms.objectives.bapo:BalancedClip",
    "gspo": "learner.algorithms.objectives.gspo:SequenceClip",
    "cispo": "learner.algorithms.objectives.cispo:ClippedWeight",
    "real": "learner.algorithms.objectives.real:RewardsAsLabels",
    "apa": "learner.algorithms.objectives.apa:AdvantageAlignment",
}
"""Type name -> ``module:Class``."""
