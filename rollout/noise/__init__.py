"""Noise models, for experiments. A built-in is a name and an import string; others are given as ``module:Class``."""

from __future__ import annotations

NOISES: dict[str, str] = {
    "symmetric_flip": "rollout.noise.flips:SymmetricFlip",
    "asymmetric_flip": "rollout.noise.flips:AsymmetricFlip",
    "reward_model_binary": "rollout.noise.flips:RewardModelBinary",
    "systematic_false_positive": "rollout.noise.systematic:SystematicFalsePositive",
    "gaussian": "rollout.noise.additive:Gaussian",
    "reward_model_continuous": "rollout.noise.additive:RewardModelContinuous",
    "student_t": "rollout.noise.additive:StudentT",
    "spikes": "rollout.noise.additive:Spikes",
    "length_bias": "rollout.noise.length_bias:LengthBias",
    "missing": "rollout.noise.missing:Missing",
    "quantised": "rollout.noise.scale:Quantised",
    "saturated": "rollout.noise.scale:Saturated",
}
"""Built-in name -> ``module:Class``."""
