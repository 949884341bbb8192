"""What memory, shared memory and disk a run needs, against what a machine has. Estimates, said as such."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.check.machine import Machine
from cluster.config.model_folder import load_model_config, num_adapter_weights, num_critic_weights, num_policy_weights
from cluster.config.object_store import object_store_mib, object_store_need_mib
from cluster.config.run_config import RunConfig

LEARNER_PROCESS_MIB, ENGINE_PROCESS_MIB, OTHER_PROCESSES_MIB = 500, 900, 1500
"""Resident memory before any model: a learner rank, a rollout worker with its engine, and all the rest with Ray."""
ACTIVATIONS = 24
"""Numbers that the backward pass keeps of a token in a layer, in hidden sizes: an average of usual transformers."""
RAY_REFUSES_MIB = 10**10 >> 20
"""Size from which Ray does not start with a store outside of /dev/shm."""
LOGGED_BYTES_PER_TOKEN = 6
STEP_RECORD_BYTES = 16_000
"""Of a step's metrics, as JSON and for TensorBoard, and of its events."""
LEDGER_BYTES = 400
"""Of a trajectory in the ledger."""
SURE = 0.9
"""Share of an estimate that is sure enough to refuse a run by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """How large the models of a run are.

    Attributes:
        policy, critic: parameters; 0 without a critic.
        num_layers, hidden: of the policy's transformer.
        has_reference: whether a frozen copy of the policy is kept.
        policy_adapters, critic_adapters: parameters that are trained in place of these; 0 without.
    """

    policy: int
    critic: int
    num_layers: int
    hidden: int
    has_reference: bool
    policy_adapters: int = 0
    critic_adapters: int = 0

    @property
    def policy_trained(self) -> int:
        """Parameters of the policy that an optimiser has states of."""
        return self.policy_adapters or self.policy

    @property
    def critic_own(self) -> int:
        """Parameters of the critic that it does not share with the policy; all of them are trained."""
        return self.critic_adapters or self.critic


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a run needs, in MiB.

    Attributes:
        learners, engines, others: ordinary memory of all learner ranks, of all engines, and of all other processes.
        object_store: shared memory, as it is chosen or given.
        object_store_need: shared memory that weights and trajectories take.
        checkpoint: one checkpoint on disk.
        checkpoints: all that lie there at once.
        logs: everything else in the run's folder at its end.
    """

    learners: int
    engines: int
    others: int
    object_store: int
    object_store_need: int
    checkpoint: int
    checkpoints: int
    logs: int

    @property
    def memory(self) -> int:
        """All of the memory; the object store is part of it where it lies in /dev/shm."""
        return self.learners + self.engines + self.others + self.object_store_need


@dataclass(slots=True)
class DemandReport:
    """What :func:`compare` found: refusals, warnings and lines for the plan."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)


def model_sizes(config: RunConfig, needs_critic: bool, has_reference: bool) -> ModelSizes:
    """The sizes of the configured models, made without memory for their weights.

    Raises:
        UserError: one of them is not there or cannot be made.
    """
    text = load_model_config(config.model.path, "model.path", config.model.trust_remote_code).get_text_config()
    adapters = num_adapter_weights(config.model)
    return ModelSizes(
        policy=num_policy_weights(config.model),
        critic=num_critic_weights(config.model) if needs_critic else 0,
        num_layers=getattr(text, "num_hidden_layers", 0),  # not every kind says so
        hidden=text.hidden_size,
        has_reference=has_reference and config.model.lora is None,
        policy_adapters=adapters,
        critic_adapters=adapters if needs_critic and config.model.critic_adapts else 0,
    )


def demand_of(config: RunConfig, sizes: ModelSizes) -> Demand:
    """What ``config`` needs on one machine; models on GPUs take none of its memory."""
    checkpoint = _mib(_checkpoint_bytes(config, sizes))
    # The oldest one goes when the newest is complete.
    kept = config.training.keep_checkpoints
    if not config.training.checkpoint_every_steps:
        kept = 0  # one at the end
    return Demand(
        learners=_learners_mib(config, sizes),
        engines=_engines_mib(config, sizes),
        others=OTHER_PROCESSES_MIB,
        object_store=object_store_mib(config, sizes.policy),
        object_store_need=object_store_need_mib(config, sizes.policy),
        checkpoint=checkpoint,
        checkpoints=checkpoint * (kept + 1),
        logs=_mib(_log_bytes(config)),
    )


def _learners_mib(config: RunConfig, sizes: ModelSizes) -> int:
    """Weights, gradients, AdamW's two moments and master weights, activations, and the copy that is being saved."""
    learner, num_ranks = config.learner, config.learner.num_workers
    if config.cluster.gpus_per_learner_worker > 0:
        return num_ranks * LEARNER_PROCESS_MIB
    stage, width = learner.zero_stage, _width(config)
    split_weights, split_gradients = (num_ranks if stage == 3 else 1), (num_ranks if stage >= 2 else 1)
    optimiser = 8.0 if stage == 0 else 12.0 / num_ranks
    per_rank = sizes.policy * width / split_weights if sizes.policy_adapters else 0.0
    for number, bytes_each in ((sizes.policy_trained, width), (sizes.critic_own, 4)):
        weights = bytes_each / split_weights
        held = weights + 4.0 / split_gradients + optimiser
        per_rank += number * (held + optimiser + weights)  # the copy: optimiser and weights
    # Recomputing keeps the input of each layer, and all of the one that is being recomputed.
    recomputes = config.model.recomputes(max(sizes.policy, sizes.critic))
    layers = sizes.num_layers + ACTIVATIONS if recomputes else ACTIVATIONS * sizes.num_layers
    tokens = max(learner.micro_batch_tokens, config.rollout.longest_tokens)
    activations = min(tokens, _rank_tokens(config)) * sizes.hidden * layers * 4
    looked_at = sizes.policy * width  # the starting model: kept by every rank, or for a look by one
    start = num_ranks * looked_at if sizes.has_reference else looked_at * (config.logging.kl_to_start_every > 0)
    start = 0 if sizes.policy_adapters else start
    exported = (sizes.policy + sizes.critic_own) * 4
    return num_ranks * LEARNER_PROCESS_MIB + _mib(num_ranks * (per_rank + activations) + start + exported)


def _rank_tokens(config: RunConfig) -> int:
    """Tokens that a rank has of a batch at most."""
    rows = math.ceil(config.training.trajectories_per_step / config.learner.num_workers)
    return rows * config.rollout.longest_tokens


def _engines_mib(config: RunConfig, sizes: ModelSizes) -> int:
    """Weights of each engine, the ones that replace them while they are loaded, and the KV cache."""
    rollout, number = config.rollout, config.rollout.most_workers
    if config.cluster.gpus_per_rollout_worker > 0:
        return number * ENGINE_PROCESS_MIB
    width = 4 if rollout.dtype == "float32" else 2
    loading = 4 + width
    return number * (ENGINE_PROCESS_MIB + rollout.kv_cache_mib + _mib(sizes.policy * (width + loading)))


def _checkpoint_bytes(config: RunConfig, sizes: ModelSizes) -> float:
    """Policy and critic for others to load, and their state: weights again, and what AdamW keeps."""
    optimiser = 8 if config.learner.zero_stage == 0 else 12
    whole = (
        sizes.policy * _width(config) if config.model.lora is not None and config.model.lora.merged_checkpoints else 0
    )
    return whole + sizes.policy_trained * (2 * _width(config) + optimiser) + sizes.critic_own * (2 * 4 + optimiser)


def _log_bytes(config: RunConfig) -> float:
    training, logging = config.training, config.logging
    files = min(training.num_steps, logging.keep_trajectory_files)
    texts = logging.trajectory_samples_per_step * config.rollout.longest_tokens * LOGGED_BYTES_PER_TOKEN
    limits = logging.trace_limits()
    logged = files * (texts + limits.max_bytes * limits.is_on)
    return logged + training.num_steps * (STEP_RECORD_BYTES + training.trajectories_per_step * LEDGER_BYTES)


def _width(config: RunConfig) -> int:
    """Bytes of a weight that the learner computes with."""
    return 2 if config.model.dtype == "bfloat16" else 4


def _mib(num_bytes: float) -> int:
    return math.ceil(num_bytes / 2**20)


def compare(config: RunConfig, demand: Demand, machine: Machine) -> DemandReport:
    """What does not fit: refused where it cannot work, a warning where an estimate says so; and the plan's lines."""
    report = DemandReport()
    _compare_shared_memory(config, demand, machine, report)
    _compare_disk(config, demand, machine, report)
    has = machine.memory_available_mib
    if has and demand.memory > has:
        report.warnings.append(
            f"learner.micro_batch_tokens: the run may need about {_text(demand.memory)} of memory ({_parts(demand)}), "
            f"and {_text(has)} are available: processes may be ended for want of memory; lower it, "
            "rollout.kv_cache_mib or "
            "rollout.num_workers, or set model.gradient_checkpointing"
        )
    disk = [] if machine.disk_free_mib is None else [f"of {_text(machine.disk_free_mib)} free"]
    store = (
        "outside of /dev/shm" if _falls_back(demand, machine) else f"of {_text(machine.shared_memory_free_mib or 0)}"
    )
    report.plan = [
        f"memory: about {_text(demand.memory)} ({_parts(demand)}), {_text(has)} available",
        f"shared memory: an object store of {_text(demand.object_store)} {store}, of which weights and trajectories "
        f"take up to {_text(demand.object_store_need)}",
        " ".join(
            [
                f"disk: about {_text(demand.checkpoints + demand.logs)} (a checkpoint {_text(demand.checkpoint)}, "
                f"checkpoints at once {_text(demand.checkpoints)}, logs {_text(demand.logs)})",
                *disk,
            ]
        ),
    ]
    return report


def _falls_back(demand: Demand, machine: Machine) -> bool:
    return machine.shared_memory_free_mib is None or demand.object_store > machine.shared_memory_free_mib


def _compare_shared_memory(config: RunConfig, demand: Demand, machine: Machine, report: DemandReport) -> None:
    given, need = config.cluster.object_store_mib, demand.object_store_need
    if given is not None and given < need:
        report.warnings.append(
            f"cluster.object_store_mib: {given} MiB are less than the {need} MiB that the policy's weights and the "
            "trajectories on their way take; Ray then writes them to disk, which is slow. Leave it out, or give "
            f"{need} or more"
        )
    if given is not None or not _falls_back(demand, machine):
        return  # a given size that does not fit is refused where all resources are
    free = machine.shared_memory_free_mib or 0
    advice = "make /dev/shm larger (in a container: --shm-size)"
    if demand.object_store > RAY_REFUSES_MIB:
        report.errors.append(
            f"cluster.object_store_mib: the run needs {demand.object_store} MiB of shared memory and {free} MiB are "
            f"free in /dev/shm; Ray does not start so large a store elsewhere: {advice}"
        )
        return
    report.warnings.append(
        f"cluster.object_store_mib: the run needs {demand.object_store} MiB of shared memory and {free} MiB are free "
        f"in /dev/shm, so Ray falls back to a file in /tmp, which is slow: {advice}"
    )


def _compare_disk(config: RunConfig, demand: Demand, machine: Machine, report: DemandReport) -> None:
    free = machine.disk_free_mib
    if free is None or demand.checkpoints + demand.logs <= free:
        return
    needs = f"a checkpoint takes about {_text(demand.checkpoint)}, and {_text(free)} are free in {config.output_dir}"
    if SURE * demand.checkpoint > free:
        report.errors.append(f"output_dir: {needs}; make space or choose another folder")
        return
    report.warnings.append(
        f"training.keep_checkpoints: the run may need about {_text(demand.checkpoints + demand.logs)} of disk; {needs}"
        "; lower it, or make space: a run whose disk is full waits for some"
    )


def _parts(demand: Demand) -> str:
    named: Sequence[tuple[str, int]] = (
        ("learning", demand.learners),
        ("sampling", demand.engines),
        ("object store", demand.object_store_need),
        ("other processes", demand.others),
    )
    return ", ".join(f"{name} {_text(mib)}" for name, mib in named)


def _text(mib: float) -> str:
    """A size for people."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
