"""``dvpo plan``: whether a run fits the GPUs it is meant for, what to change if not, and the best split of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.check.memory_plan.engine_memory import EngineMemory, engine_memory
from cluster.check.memory_plan.learner_memory import Needs, RankMemory, needs_of, rank_memory
from cluster.check.memory_plan.shape import ModelShape, critic_shape, policy_shape
from cluster.check.memory_plan.speed import Speed, speed
from cluster.config.run_config import RunConfig
from cluster.run.places.placement import plan as placement_plan
from cluster.run.places.placement import require_capacity
from cluster.run.reward_models import served_models
from rollout.component import UserError
from rollout.component.mistakes import BadArgument

GIB = 1 << 30
RESERVED = 0.06
"""Share of a GPU's memory for the CUDA context, NCCL's own buffers and gaps between blocks (our choice)."""
CPUS_PER_NODE = 4096.0
"""Nobody counts CPUs here."""


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """GPUs that a run is planned for: nodes, GPUs of each, and bytes of each."""

    nodes: int
    per_node: int
    num_bytes: int

    @classmethod
    def parse(cls, text: str) -> Gpus:
        """``8x80`` (one node) or ``4x8x80``: nodes, GPUs of a node, GiB of a GPU.

        Raises:
            UserError: it is written in another way.
        """
        found = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", text.strip().lower())
        if found is None or not all(int(x) for x in found.groups("1")):
            raise BadArgument(
                f"--gpus: must be like 8x80 or 4x8x80, [nodes x] GPUs of a node x GiB of each (got {text!r})"
            )
        nodes, per_node, gib = (int(x) for x in found.groups("1"))
        return cls(nodes=nodes, per_node=per_node, num_bytes=gib * GIB)

    @property
    def usable(self) -> int:
        """Bytes of a GPU that tensors can have."""
        return int(self.num_bytes * (1.0 - RESERVED))


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run's memory and speed.

    Attributes:
        engine: None where engines are on CPUs.
        gpus: what it was planned for, or None.
    """

    config: RunConfig
    policy: ModelShape
    critic: ModelShape | None
    needs: Needs
    rank: RankMemory
    engine: EngineMemory | None
    gpus: Gpus | None

    @property
    def speed(self) -> Speed | None:
        """Tokens a second; None for runs without engines on GPUs."""
        return None if self.engine is None else speed(self.config, self.policy, self.critic, self.needs, self.engine)

    def problems(self) -> Iterator[str]:
        """Why it does not fit, each starting with the key to change."""
        config, gpus = self.config, self.gpus
        if gpus is None:
            return
        try:
            nodes = [{"CPU": CPUS_PER_NODE, "GPU": float(gpus.per_node)}] * gpus.nodes
            require_capacity(placement_plan(config, served_models(config)), nodes)
        except UserError as error:
            yield f"cluster: {error}"
        if config.cluster.gpus_per_learner_worker > 0 and self.rank.total > gpus.usable:
            yield (f"learner: a rank needs {_gib(self.rank.total)} of {_gib(gpus.usable)} usable; {self._advice(gpus)}")
        if self.engine is not None and not self.engine.fits:
            yield (
                f"rollout.tensor_parallel_size: the cache holds {max(0, self.engine.cache_tokens)} tokens, and one "
                f"response may have {self.engine.longest}; raise it, or rollout.gpu_memory_utilization"
            )

    def _advice(self, gpus: Gpus) -> str:
        """What would make a rank fit: one change if one is enough, else several together."""
        chosen: dict[str, Any] = {}
        for changes in _changes(self.config, self.needs, self.critic is not None):
            alone = self._total(changes)
            if alone <= gpus.usable:
                return f"with {_written(changes)} it needs {_gib(alone)}"
            chosen |= changes
            if self._total(chosen) <= gpus.usable:
                return f"with {_written(chosen)} together it needs {_gib(self._total(chosen))}"
        return f"no setting is enough (with {_written(chosen)} still {_gib(self._total(chosen))}): take more ranks" + (
            "" if self.config.model.lora is not None else ", or train adapters (model.lora)"
        )

    def _total(self, changes: dict[str, Any]) -> int:
        return rank_memory(changed(self.config, changes), self.policy, self.critic, self.needs).total

    def lines(self) -> list[str]:
        """In words, a line a topic."""
        rank, engine = self.rank, self.engine
        shown = {name: value for name, value in rank.parts.items() if value}
        parts = ", ".join(f"{name} {_gib(value)}" for name, value in shown.items())
        usable = "" if self.gpus is None else f" of {_gib(self.gpus.usable)} usable"
        found = [f"memory of a learner rank at its peak: {_gib(rank.total)}{usable} ({parts})"]
        if engine is not None:
            found.append(
                f"memory of an engine's GPU: weights {_gib(engine.weights)}, a step {_gib(engine.step)}, weight sync "
                f"{_gib(engine.sync)}, cache {_gib(engine.cache)} = {engine.cache_tokens:,} tokens an engine, "
                f"{engine.requests} requests of {engine.longest} tokens"
            )
        rates = self.speed
        if rates is not None:
            tokens = self.config.training.trajectories_per_step * self.config.rollout.sampling.max_response_tokens
            seconds = rates.step_s(tokens, self.config.training.max_staleness > 0)
            found.append(
                f"speed from first principles (an H100's {989} TFLOP/s and 3.35 TB/s, at 35 and 50 %): training "
                f"{rates.training:,.0f} tokens/s, sampling {rates.sampling:,.0f} tokens/s, a step of {tokens:,} tokens "
                f"{seconds:,.0f} s"
            )
        return found + list(self._split_lines())

    def _split_lines(self) -> Iterator[str]:
        """The split of the GPUs with the fastest step among those that fit."""
        gpus, shards = self.gpus, self.config.rollout.tensor_parallel_size
        if gpus is None or self.speed is None:
            return
        total, best = gpus.nodes * gpus.per_node, None
        tokens = self.config.training.trajectories_per_step * self.config.rollout.sampling.max_response_tokens
        for ranks in range(1, total - shards + 1):
            engines = (total - ranks) // shards
            fixed = {"rollout.min_workers": None, "rollout.max_workers": None}
            other = self._with({"learner.num_workers": ranks, "rollout.num_workers": engines, **fixed})
            if other is None or other.speed is None or next(other.problems(), None) is not None:
                continue
            seconds = other.speed.step_s(tokens, self.config.training.max_staleness > 0)
            if best is None or seconds < best[0]:
                best = (seconds, ranks, engines)
        if best is None:
            yield f"no split of {total} GPUs between ranks and engines fits with these settings"
        else:
            yield (
                f"best split of {total} GPUs: learner.num_workers {best[1]}, rollout.num_workers {best[2]} (x {shards} "
                f"GPUs), {best[0]:,.0f} s a step"
            )

    def _with(self, changes: dict[str, Any]) -> Planned | None:
        config = changed(self.config, changes)
        if config.training.trajectories_per_step < config.learner.num_workers or self.gpus is None:
            return None
        rank = rank_memory(config, self.policy, self.critic, self.needs)
        engine = engine_memory(config, self.policy, self.gpus.num_bytes)
        return Planned(
            config=config,
            policy=self.policy,
            critic=self.critic,
            needs=self.needs,
            rank=rank,
            engine=engine,
            gpus=self.gpus,
        )


def plan_run(config: RunConfig, algorithm: Any, gpus: Gpus | None) -> Planned:
    """The plan of a run.

    Args:
        algorithm: as built from ``config``.
        gpus: that it is meant for; None: only what it needs is said.

    Raises:
        UserError: a model's config.json is not there or cannot be used.
    """
    policy, needs = policy_shape(config), needs_of(algorithm)
    critic = critic_shape(config) if needs.heads else None
    engine = None
    if config.cluster.gpus_per_rollout_worker > 0 and gpus is not None:
        engine = engine_memory(config, policy, gpus.num_bytes)
    rank = rank_memory(config, policy, critic, needs)
    return Planned(config=config, policy=policy, critic=critic, needs=needs, rank=rank, engine=engine, gpus=gpus)


def changed(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The configuration with some values of sections changed, by their keys; nothing is validated anew."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        part = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: part})
    return config


def _changes(config: RunConfig, needs: Needs, has_critic: bool) -> Iterator[dict[str, Any]]:
    """Settings that save memory, those that cost least first."""
    learner, longest = config.learner, config.rollout.longest_tokens
    if config.model.gradient_checkpointing is False:
        yield {"model.gradient_checkpointing": True}
    if learner.zero_stage < 3:
        yield {"learner.zero_stage": 3}
    if needs.has_reference and learner.reference == "replicated" and config.model.lora is None:
        yield {"learner.reference": "sharded" if learner.zero_stage == 3 else "offloaded"}
    if learner.micro_batch_tokens > longest:
        yield {"learner.micro_batch_tokens": longest}
    if learner.offload == "none":
        yield {"learner.offload": "optimizer"}
    if learner.offload != "all":
        yield {"learner.zero_stage": 3, "learner.offload": "all"}


def _written(changes: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()
    )


def _gib(num_bytes: int) -> str:
    """``12.3 GiB``, ``45 MiB``."""
    return f"{num_bytes / GIB:.1f} GiB" if abs(num_bytes) >= GIB else f"{num_bytes / 2**20:.0f} MiB"
