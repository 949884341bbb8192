"""Bytes of one GPU of an engine, and how many tokens its cache holds."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.check.memory_plan.learner_memory import SYNC_BUFFER
from cluster.check.memory_plan.shape import ModelShape
from cluster.config.run_config import RunConfig

STEP_TOKENS = 8192
"""Tokens that vLLM computes in one step of a GPU's engine, by its own default."""


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """Bytes of one GPU.

    Attributes:
        weights, step, sync: of the model's part, of the activations of a step, of the buffers of a weight transfer.
        cache: what is left of ``rollout.gpu_memory_utilization`` for keys and values; negative if nothing is.
        cache_tokens: of all GPUs of the engine, that fit into it.
        longest: tokens of one request at most.
    """

    weights: int
    step: int
    sync: int
    cache: int
    cache_tokens: int
    longest: int

    @property
    def fits(self) -> bool:
        """Whether one request of the greatest length has room."""
        return self.cache_tokens >= self.longest

    @property
    def requests(self) -> int:
        """Requests of the greatest length that have room at a time."""
        return max(0, self.cache_tokens) // self.longest


def engine_memory(config: RunConfig, policy: ModelShape, gpu_bytes: int) -> EngineMemory:
    """Of each GPU of an engine."""
    rollout = config.rollout
    shards = rollout.tensor_parallel_size
    width = 4 if rollout.dtype == "float32" else 2
    step = rollout.engine_args.get("max_num_batched_tokens", STEP_TOKENS)
    weights = policy.num_weights * width // shards
    activations = (
        int(step) * (2 * policy.inner + 4 * policy.hidden) * width + rollout.max_concurrent_requests * policy.vocab * 8
    )
    sync = 2 * SYNC_BUFFER if config.cluster.gpus_per_learner_worker > 0 else 0
    usable = int(gpu_bytes * rollout.gpu_memory_utilization)
    cache = usable - weights - activations
    return EngineMemory(
        weights=weights,
        step=activations,
        sync=sync,
        cache=cache,
        cache_tokens=cache // max(1, policy.cache_numbers * width // shards),
        longest=rollout.longest_tokens,
    )
