"""Reward functions. A built-in is a name and an import string; others are given as ``module:Class`` or a function."""

from __future__ import annotations

REWARDS: dict[str, str] = {
    "exact_match": "rollout.rewards.exact_match:ExactMatch",
    "math_verify": "rollout.rewards.math_expression:MathVerify",
    "model": "rollout.rewards.model:ModelReward",
    "multiple_choice": "rollout.rewards.multiple_choice:MultipleChoice",
    "numeric": "rollout.rewards.numeric:Numeric",
    "outcome": "rollout.rewards.outcome:OutcomeReward",
    "reasoning_gym": "rollout.tasks.libraries.scores:ReasoningGymReward",
    "remote": "rollout.rewards.remote:Remote",
    "response_format": "rollout.rewards.response_format:ResponseFormat",
    "verifiers": "rollout.tasks.libraries.scores:VerifiersReward",
}
"""Built-in name -> ``module:Class``."""
