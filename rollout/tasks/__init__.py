"""Sources of prompts. A built-in is a name and an import string; anything else is given as ``module:Class``."""

from __future__ import annotations

TASKS: dict[str, str] = {
    "chain": "rollout.tasks.chain:Chain",
    "dataset": "rollout.tasks.dataset:Dataset",
    "math": "rollout.tasks.graded_chain:GradedChain",
    "science": "rollout.tasks.science:Science",
    "reasoning_gym": "rollout.tasks.libraries.reasoning_gym:ReasoningGym",
    "verifiers": "rollout.tasks.libraries.verifiers:Verifiers",
    "dialogue": "rollout.tasks.dialogue.task:Dialogue",
}
"""Built-in name -> ``module:Class``."""
