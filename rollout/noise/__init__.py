"""Noise models by name. Importing this file loads none of them."""

from __future__ import annotations

NOISES: dict[str, str] = {
    "symmetric_flip": "rollout.noise.flips:SymmetricFlip",
    "asymmetric_flip": "rollout.noise.flips:AsymmetricFlip",
    "reward_model_binary": "rollout.noise.flips:RewardModelBinary",
    "systematic_false_positive": "rollout.noise.response_bias:SystematicFalsePositive",
    "length_bias": "rollout.noise.response_bias:LengthBias",
    "gaussian": "rollout.noise.additive:Gaussian",
    "student_t": "rollout.noise.additive:StudentT",
    "spikes": "rollout.noise.additive:Spikes",
    "missing": "rollout.noise.missing:Missing",
    "quantised": "rollout.noise.grader_scale:Quantised",
    "saturated": "rollout.noise.grader_scale:Saturated",
}
"""Built-in name -> ``module:Class``."""
