"""Which process needs what, and whether the cluster has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.run.reward_models import ServedModel
from rollout.component.mistakes import ClusterTooSmall

Bundle = dict[str, float]
"""Resources of one process: ``{"CPU": 1.0, "GPU": 1.0}``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One bundle for each learner rank, then each rollout worker, then each reward model worker, in that order."""

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


def plan(config: RunConfig, models: Sequence[ServedModel]) -> Plan:
    """The resources that the run's workers ask for. Controller and reward service actors ask for none.

    Args:
        models: what :func:`cluster.run.reward_models.served_models` finds in ``config``.
    """
    cluster = config.cluster
    learner = _bundle(cluster.cpus_per_learner_worker, cluster.gpus_per_learner_worker)
    rollout = _bundle(cluster.cpus_per_rollout_worker, cluster.gpus_per_rollout_worker)
    served = [_bundle(m.options.num_cpus, m.options.num_gpus) for m in models for _ in range(m.options.num_workers)]
    return Plan((learner,) * config.learner.num_workers, (rollout,) * config.rollout.num_workers, tuple(served))


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
    for bundle in sorted(demand.bundles, key=lambda b: (b.get("GPU", 0.0), b["CPU"]), reverse=True):
        for node in free:
            if all(node.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items()):
                for name, amount in bundle.items():
                    node[name] -= amount
                break
        else:
            have = "; ".join(describe(node) for node in nodes) or "no nodes"
            count = len(demand.reward_model_bundles)
            models = f" and {count} reward model workers" if count else ""
            needed = {name: demand.total(name) for name in ("CPU", "GPU") if demand.total(name)}
            raise ClusterTooSmall(
                f"the cluster is too small: the run needs {describe(needed)} for {len(demand.learner_bundles)} "
                f"learner ranks and {len(demand.rollout_bundles)} rollout workers{models}; the nodes have {have}. "
                "Lower rollout.num_workers, learner.num_workers or cluster.*_per_*_worker, add nodes, or for a private "
                "Ray raise cluster.num_cpus (more processes than cores is allowed)"
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
            if not any(all(node.get(name, 0.0) >= amount - 1e-9 for name, amount in bundle.items()) for node in nodes):
                have = "; ".join(describe(node) for node in nodes) or "no nodes"
                raise ClusterTooSmall(
                    f"no node is large enough: a {owner} needs {describe(bundle)} on one node, with all GPUs of its "
                    f"engine; the nodes have {have}. Lower {keys}, or add larger nodes"
                )


def describe(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs, in words."""
    shown = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return " + ".join(shown) or "nothing"
