"""Which process needs what, and whether the cluster has it. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.run.reward_models import ServedModel
from rollout.component.mistakes import ClusterTooSmall

NEVER = sys.maxsize
Bundle = dict[str, float]
"""Resources of one process: ``{"CPU": 1.0, "GPU": 1.0}``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One bundle for each learner rank, each rollout worker that the run needs, and each reward model worker."""

    learner_bundles: tuple[Bundle, ...]
    rollout_bundles: tuple[Bundle, ...]
    reward_model_bundles: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> list[Bundle]:
        """All bundles."""
        return [*self.learner_bundles, *self.rollout_bundles, *self.reward_model_bundles]

    def total(self, resource: str) -> float:
        """Sum of one resource."""
        return sum(bundle.get(resource, 0.0) for bundle in self.bundles)


def rollout_bundle(config: RunConfig) -> Bundle:
    """What each rollout worker needs."""
    return _bundle(config.cluster.cpus_per_rollout_worker, config.cluster.gpus_per_rollout_worker)


def plan(config: RunConfig, models: Sequence[ServedModel]) -> Plan:
    """The resources that the run's workers ask for. Controller and reward service actors ask for none.

    Args:
        models: what :func:`cluster.run.reward_models.served_models` finds in ``config``.
    """
    cluster = config.cluster
    learner = _bundle(cluster.cpus_per_learner_worker, cluster.gpus_per_learner_worker)
    rollout = rollout_bundle(config)
    served = [_bundle(m.options.num_cpus, m.options.num_gpus) for m in models for _ in range(m.options.num_workers)]
    return Plan((learner,) * config.learner.num_workers, (rollout,) * config.rollout.fewest_workers, tuple(served))


def _fits(bundle: Bundle, node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items())


def _take(bundle: Bundle, node: dict[str, float]) -> None:
    for name, amount in bundle.items():
        node[name] = node.get(name, 0.0) - amount


def who_makes_room(
    needed: Sequence[Bundle], free: Mapping[str, Mapping[str, float]], homes: Mapping[int, str], own: Bundle, spare: int
) -> list[int]:
    """Which rollout workers have to leave so that other processes have room; none where all have, or it is no help.

    Args:
        needed: resources of each of the others.
        free: resources of each node that nobody has.
        homes: node of each rollout worker, by its number.
        own: resources that each of them has.
        spare: how many may leave.
    """
    left = {node: dict(resources) for node, resources in free.items()}
    there = {node: sorted(index for index, home in homes.items() if home == node) for node in left}
    leaving: list[int] = []
    for bundle in sorted(needed, key=_size, reverse=True):
        costs = {node: _departures(bundle, left[node], own, len(there[node])) for node in left}
        node, cost = min(costs.items(), key=lambda item: item[1], default=("", spare + 1))
        if len(leaving) + cost > spare:
            return []
        for _ in range(cost):
            leaving.append(there[node].pop())
            _take({name: -amount for name, amount in own.items()}, left[node])
        _take(bundle, left[node])
    return leaving


def _departures(bundle: Bundle, free: Mapping[str, float], own: Bundle, most: int) -> int:
    """How many workers have to leave a node for a bundle to fit; far too many where it cannot."""
    for count in range(most + 1):
        if _fits(bundle, {name: free.get(name, 0.0) + count * own.get(name, 0.0) for name in bundle}):
            return count
    return NEVER


def _size(bundle: Bundle) -> tuple[float, float]:
    return bundle.get("GPU", 0.0), bundle["CPU"]


def _bundle(cpus: float, gpus: float) -> Bundle:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def require_capacity(demand: Plan, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that the bundles fit on the nodes (first fit, largest first).

    Args:
        nodes: total resources of each live node.

    Raises:
        UserError: they do not; says what is needed and what the largest node has.
    """
    _require_whole_nodes(demand, nodes)
    free = [dict(node) for node in nodes]
    # GPUs are the scarce part of a node, so what needs them chooses first.
    for bundle in sorted(demand.bundles, key=_size, reverse=True):
        for node in free:
            if _fits(bundle, node):
                _take(bundle, node)
                break
        else:
            have = "; ".join(describe(node) for node in nodes) or "no nodes"
            count = len(demand.reward_model_bundles)
            models = f" and {count} reward model workers" if count else ""
            needed = {name: demand.total(name) for name in ("CPU", "GPU") if demand.total(name)}
            raise ClusterTooSmall(
                f"the cluster is too small: the run needs {describe(needed)} for {len(demand.learner_bundles)} "
                f"learner ranks and {len(demand.rollout_bundles)} rollout workers{models}; the nodes have {have}. "
                "Lower rollout.num_workers or min_workers, learner.num_workers or cluster.*_per_*_worker, add nodes, "
                "or for a private Ray raise cluster.num_cpus (more processes than cores is allowed)"
            )


def _require_whole_nodes(demand: Plan, nodes: Sequence[Mapping[str, float]]) -> None:
    """Each process, with all GPUs of its engine, is on one node.

    Raises:
        UserError: no node is large enough for one of them, even if it has nothing else.
    """
    owners = (
        (demand.learner_bundles, "learner rank", "cluster.cpus_per_learner_worker and gpus_per_learner_worker"),
        (demand.rollout_bundles, "rollout worker", "rollout.tensor_parallel_size and cluster.*_per_rollout_worker"),
        (demand.reward_model_bundles, "reward model worker", "its num_cpus and num_gpus"),
    )
    for bundles, owner, keys in owners:
        for bundle in bundles:
            if not any(_fits(bundle, node) for node in nodes):
                have = "; ".join(describe(node) for node in nodes) or "no nodes"
                raise ClusterTooSmall(
                    f"no node is large enough: a {owner} needs {describe(bundle)} on one node, with all GPUs of its "
                    f"engine; the nodes have {have}. Lower {keys}, or add larger nodes"
                )


def describe(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs, in words."""
    shown = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return " + ".join(shown) or "nothing"
