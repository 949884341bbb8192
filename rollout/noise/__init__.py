"""Noise models by name. Importing this file loads none of them."""

from __future__ import annotations

NOISES: dict[str, str] = {
    "symmetric_flip": "rollout.noise.flips:SymmetricFlip",
    "asymmetric_flip": "rollout.noise.flips:AsymmetricFlip",
    "reward_model_binary": "rollout.noise.flips:RewardModelBinary",
    "systematic_false_positive": "rollout.noise.response_bias:SystematicFalsePositive",
    "systematic_false_negative": "rollout.noise.response_bias:SystematicFalseNegative",
    "length_bias": "rollout.noise.response_bias:LengthBias",
    "confidence_flip": "rollout.noise.confidence:ConfidenceFlip",
    "majority_vote": "rollout.noise.majority_vote:MajorityVote",
    "gaussian": "rollout.noise.additive:Gaussian",
    "reward_model_continuous": "rollout.noise.additive:RewardModelContinuous",
    "student_t": "rollout.noise.additive:StudentT",
    "spikes": "rollout.noise.additive:Spikes",
    "missing": "rollout.noise.missing:Missing",
    "delay": "rollout.noise.delay:Delay",
    "quantised": "rollout.noise.grader_scale:Quantised",
    "saturated": "rollout.noise.grader_scale:Saturated",
    "sources": "rollout.noise.sources:Sources",
}
"""Built-in name -> ``module:Class``."""
