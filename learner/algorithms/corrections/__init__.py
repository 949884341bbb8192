"""Reward corrections by name. ``base.RewardCorrection`` says what one is; each built-in one is in a file of its own."""

from __future__ import annotations

CORRECTIONS: dict[str, str] = {
    "normalise": "learner.algorithms.corrections.normalise:Normalise",
    "percentile_clip": "learner.algorithms.corrections.clip:PercentileClip",
    "mad_clip": "learner.algorithms.corrections.clip:MadClip",
    "noise_corrected": "learner.algorithms.corrections.verifier:NoiseCorrected",
    "forward_corrected": "learner.algorithms.corrections.verifier:ForwardCorrected",
    "winsorise": "learner.algorithms.corrections.winsorise:Winsorise",
    "relabel": "learner.algorithms.corrections.relabel:OnlineRelabel",
    "label_smoothing": "learner.algorithms.corrections.smoothing:LabelSmoothing",
    "group_filter": "learner.algorithms.corrections.selection:GroupFilter",
    "gold_only": "learner.algorithms.corrections.selection:GoldOnly",
    "soft_overlong": "learner.algorithms.corrections.overlong:SoftOverlong",
    "overlong_filter": "learner.algorithms.corrections.overlong:OverlongFilter",
    "evidence": "learner.algorithms.corrections.evidence.correction:Evidence",
    "precision": "learner.algorithms.corrections.precision:Precision",
}
"""Type name -> ``module:Class``."""
