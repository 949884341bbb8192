"""What is added to a critic's loss to filter noise, by name; ``base.CriticRegulariser`` says what one is."""

from __future__ import annotations

REGULARISERS: dict[str, str] = {
    "bottleneck": "learner.algorithms.critic.regularisers.bottleneck:Bottleneck",
    "noise_augmented": "learner.algorithms.critic.regularisers.noise_augmented:NoiseAugmented",
    "semantic": "learner.algorithms.critic.regularisers.semantic:Semantic",
    "semantic_kl": "learner.algorithms.critic.regularisers.semantic:SemanticKL",
}
"""Type name -> ``module:Class``."""
