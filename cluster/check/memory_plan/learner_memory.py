"""Bytes of one learner rank, part by part.

The formulas are those of the tensors that the update makes, checked against counted ones by ``python -m
benchmarks.memory_plan``. What a transformer keeps of a token in a layer was counted for Qwen3's layers and is linear in
the layer's widths to the last byte; a layer of another kind keeps about as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.check.memory_plan.shape import ModelShape
from cluster.config.run_config import RunConfig

LOGITS_AT_ONCE = 5
"""Float32 blocks of logits in the backward pass of a chunk: themselves, probabilities, and what the gradient is of."""
CHUNK_NUMBERS = 1 << 24
"""Of one block, see :mod:`learner.maths.logprobs`."""
PARTS_AT_ONCE = 3
"""Copies of a micro-batch's heads in the critic's backward pass: values, their gradient, and their order."""
SYNC_BUFFER = 1 << 30
"""Of vLLM's packed NCCL transfer; there are two."""
BUCKET, LIVE, PREFETCH = 500_000_000, 1_000_000_000, 50_000_000
"""DeepSpeed's defaults, in numbers."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an algorithm needs of the learner.

    Attributes:
        heads, quantiles: of the critic; 0 without one.
        keeps_heads: whether the old critic's heads are all kept, not only their mean.
        has_reference: whether there is a frozen starting policy.
        num_atoms: of a value target.
    """

    heads: int = 0
    quantiles: int = 0
    keeps_heads: bool = False
    has_reference: bool = False
    num_atoms: int = 1


def needs_of(algorithm: Any) -> Needs:
    """Read off a built algorithm."""
    critic = algorithm.critic_config
    if critic is None:
        return Needs(has_reference=algorithm.needs_reference)
    target = getattr(getattr(algorithm.config, "target", None), "type", "")
    return Needs(
        heads=critic.num_heads,
        quantiles=critic.num_quantiles,
        keeps_heads=algorithm.needs_old_heads,
        has_reference=algorithm.needs_reference,
        num_atoms=critic.num_quantiles if target in ("mixture", "quantile_wise") else 1,
    )


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes on the device of one rank at its peak, by what they are for; the peak is in the policy's backward pass."""

    weights: int
    optimiser: int
    gradients: int
    reference: int
    activations: int
    logits: int
    values: int
    buckets: int
    sync: int
    gradients_stay: bool = False

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by what they are for."""
        return {name: value for name, value in vars(self).items() if name != "gradients_stay"}

    @property
    def total(self) -> int:
        """All together."""
        return sum(self.parts.values())

    @property
    def resident(self) -> int:
        """Between two updates; ZeRO-3 keeps the memory of gradients."""
        return self.weights + self.optimiser + self.reference + self.gradients * self.gradients_stay


def rank_memory(config: RunConfig, policy: ModelShape, critic: ModelShape | None, needs: Needs) -> RankMemory:
    """Of the largest rank; on a CPU, whose host memory is the device's, nothing is less for being offloaded."""
    learner, on_gpu = config.learner, config.cluster.gpus_per_learner_worker > 0
    stage, ranks = learner.zero_stage, learner.num_workers
    width = 2 if config.model.dtype == "bfloat16" else 4
    offload = learner.offload if on_gpu else "none"
    by_stage = {"weights": ranks if stage == 3 else 1, "gradients": ranks if stage >= 2 else 1}
    frozen, models = _models(policy, critic, needs, width)
    weights = 0 if offload == "all" else frozen * width // by_stage["weights"]
    optimiser = gradients = 0
    for number, bytes_each in models:
        split = number // by_stage["weights"]
        weights += 0 if offload == "all" else split * bytes_each
        if stage > 0:
            optimiser += 0 if offload != "none" else 12 * number // ranks  # master weights and two moments
            gradients += 0 if offload != "none" else 4 * number // by_stage["gradients"]
        else:
            optimiser, gradients = optimiser + 8 * number, gradients + 4 * number
    tokens = micro_tokens(config)
    reference = policy.num_weights * width if needs.has_reference and not policy.adapters else 0
    if learner.reference == "sharded":
        reference //= ranks
    elif learner.reference == "offloaded" and on_gpu:
        reference //= 2 * policy.num_layers  # about a layer's largest weight
    rows = min(tokens, max(1, CHUNK_NUMBERS // policy.vocab))
    logits = LOGITS_AT_ONCE * rows * policy.vocab * 4 + policy.vocab * policy.hidden * (width + 4) * (
        on_gpu and not frozen
    )
    passes = [activation_bytes(config, policy, width, tokens, is_critic=False, before=logits)]
    passes += [] if critic is None else [activation_bytes(config, critic, width, tokens, is_critic=True)]
    return RankMemory(
        weights=weights,
        optimiser=optimiser,
        gradients=gradients,
        reference=reference,
        activations=max(passes),
        logits=logits,
        values=_value_bytes(config, needs, tokens, on_gpu),
        buckets=_bucket_bytes(config, models, frozen * width),
        sync=2 * SYNC_BUFFER if on_gpu and config.cluster.gpus_per_rollout_worker > 0 else 0,
        gradients_stay=stage == 3,
    )


def _models(
    policy: ModelShape, critic: ModelShape | None, needs: Needs, width: int
) -> tuple[int, list[tuple[int, int]]]:
    """Frozen numbers, which are there once, and of each model the trained ones with the bytes of each."""
    frozen = policy.num_weights if policy.adapters else 0
    models = [(policy.adapters or policy.num_weights, width)]
    if critic is not None:
        models.append(((critic.adapters or critic.num_weights) + critic.hidden * needs.heads * needs.quantiles, 4))
    return frozen, models


def micro_tokens(config: RunConfig) -> int:
    """Tokens of the largest micro-batch, were all trajectories as long as they may be."""
    longest = config.rollout.longest_tokens
    rows = -(-config.training.trajectories_per_step // config.learner.num_workers)
    return longest * max(1, min(rows, config.learner.micro_batch_tokens // longest))


def activation_bytes(
    config: RunConfig, shape: ModelShape, width: int, tokens: int, is_critic: bool, before: int = 0
) -> int:
    """What a forward pass keeps for its backward pass.

    Args:
        before: bytes that are counted besides, and are free again when a layer is computed anew.
    """
    attention = shape.query + shape.key
    is_critic_adapter = is_critic and shape.adapters > 0  # over the policy's weights, with states as the policy's
    is_critic = is_critic and not is_critic_adapter
    if width == 4:
        layer, start = 24 * shape.hidden + 16 * (shape.inner + attention), 4 * shape.hidden
    elif is_critic:  # float32 states between operations in bfloat16
        layer, start = 26 * shape.hidden + 8 * shape.inner + 10 * attention, 4 * shape.hidden
    else:
        layer, start = 16 * shape.hidden + 8 * shape.inner + 10 * attention, 2 * shape.hidden
    adapters = shape.adapter_ranks * (width + 4 * is_critic_adapter)
    if config.model.recomputes(shape.num_weights):
        once = tokens * (layer + start + adapters // shape.num_layers)
        return tokens * start * shape.num_layers + max(0, once - before)
    return tokens * (layer * shape.num_layers + adapters)


def _value_bytes(config: RunConfig, needs: Needs, tokens: int, on_gpu: bool) -> int:
    """The value distribution: the micro-batch that is looked at; on a CPU also what is kept of all tokens."""
    if not needs.heads:
        return 0
    micro = tokens * needs.heads * needs.quantiles * 4
    rows = -(-config.training.trajectories_per_step // config.learner.num_workers)
    kept = rows * config.rollout.sampling.max_response_tokens * needs.num_atoms * 4
    return PARTS_AT_ONCE * micro if on_gpu else kept


def _bucket_bytes(config: RunConfig, models: list[tuple[int, int]], frozen: int) -> int:
    """What DeepSpeed gathers weights into and gradients out of; one model is in its backward pass at a time.

    Args:
        models: what is trained of each, in numbers, and the bytes of each number.
        frozen: bytes of what is not.
    """
    zero = config.learner.deepspeed.get("zero_optimization", {})
    stage, ranks = config.learner.zero_stage, config.learner.num_workers
    if stage == 0:
        return 0
    given = zero.get("reduce_bucket_size")
    bucket = max((min(BUCKET, number) if given is None else int(given)) * width for number, width in models)
    if stage < 3:
        return bucket * (2 if zero.get("overlap_comm") else 1)
    largest = max(frozen, *(number * width for number, width in models))
    live = int(zero.get("stage3_max_live_parameters", LIVE)) + int(zero.get("stage3_prefetch_bucket_size", PREFETCH))
    return bucket + min(live * 4, largest) * (ranks > 1)
