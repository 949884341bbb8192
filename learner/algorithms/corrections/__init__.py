"""Reward corrections by name. ``base.RewardCorrection`` says what one is; each built-in one is in a file of its own."""

from __future__ import annotations

CORRECTIONS: dict[str, str] = {
    "percentile_clip": "learner.algorithms.corrections.clip:PercentileClip",
    "mad_clip": "learner.algorithms.corrections.clip:MadClip",
}
"""Type name -> ``module:Class``."""
