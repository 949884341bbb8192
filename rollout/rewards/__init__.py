"""Reward functions. A built-in is a name and an import string; anything else is given as ``module:Class``."""

from __future__ import annotations

REWARDS: dict[str, str] = {
    "exact_match": "rollout.rewards.exact_match:ExactMatch",
    "numeric": "rollout.rewards.numeric:Numeric",
    "response_format": "rollout.rewards.response_format:ResponseFormat",
}
"""Built-in name -> ``module:Class``."""
