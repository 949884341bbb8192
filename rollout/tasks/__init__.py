"""Sources of prompts. A built-in is a name and an import string; anything else is given as ``module:Class``."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "chain": "rollout.tasks.chain:Chain",
    "dataset": "rollout.tasks.dataset:Dataset",
}
"""Built-in name -> ``module:Class``."""
