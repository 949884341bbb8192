"""Tokens a second from first principles: arithmetic and memory traffic, at shares of what a GPU could do."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.check.memory_plan.engine_memory import EngineMemory
from cluster.check.memory_plan.learner_memory import Needs
from cluster.check.memory_plan.shape import ModelShape
from cluster.config.run_config import RunConfig

FLOPS, BANDWIDTH = 989e12, 3.35e12
"""Of an H100 SXM in bfloat16 without sparsity, a second, and bytes a second of its memory (its data sheet)."""
TRAINING_SHARE, DECODING_SHARE = 0.35, 0.5
"""Of the two that training and decoding reach (our guesses, for a plan only; `dvpo check --measure` measures)."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens a second of all ranks and of all engines."""

    training: float
    sampling: float

    def step_s(self, tokens: int, overlaps: bool) -> float:
        """Seconds of a step of so many sampled tokens."""
        parts = (tokens / self.training, tokens / self.sampling)
        return max(parts) if overlaps else sum(parts)


def speed(
    config: RunConfig, policy: ModelShape, critic: ModelShape | None, needs: Needs, engine: EngineMemory
) -> Speed:
    """An estimate: 2 operations a weight and token forward, 4 backward; a decoding step reads all weights once."""
    learner, rollout = config.learner, config.rollout
    work = 0.0
    for shape in (policy, critic):
        if shape is not None:
            again = 2 if config.model.recomputes(shape.num_weights) else 0
            trained = 6 if not shape.adapters else 4  # frozen weights have no gradient of their own
            work += (trained + 2 + again) * shape.num_weights + 4 * shape.adapters  # the pass before the update
    work += 2 * policy.num_weights * needs.has_reference
    training = learner.num_workers * FLOPS * TRAINING_SHARE / work
    half, shards = rollout.longest_tokens / 2, rollout.tensor_parallel_size
    requests = max(1, min(rollout.max_concurrent_requests, int(engine.cache_tokens / half)))
    read = engine.weights * shards + requests * half * policy.cache_numbers * 2
    seconds = read / (BANDWIDTH * DECODING_SHARE * shards)
    computed = requests * 2 * policy.num_weights / (FLOPS * DECODING_SHARE * shards)
    sampling = rollout.num_workers * requests / max(seconds, computed)
    return Speed(training=training, sampling=sampling)
