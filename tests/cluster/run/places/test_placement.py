"""Whether a run fits on a cluster, and what is said when it does not."""

from __future__ import annotations

import pytest

from cluster.config.run_config import RunConfig
from cluster.run.places.placement import Plan, plan, require_capacity, who_makes_room
from rollout.component import UserError


def test_plan_has_one_bundle_a_process() -> None:
    config = RunConfig.model_validate(
        {
            "model": {"path": "m"},
            "rollout": {"num_workers": 3},
            "learner": {"num_workers": 2},
            "cluster": {"cpus_per_rollout_worker": 0.5, "gpus_per_rollout_worker": 1.0, "cpus_per_learner_worker": 2.0},
        }
    )
    demand = plan(config, [])
    assert demand.bundles == [{"CPU": 2.0}] * 2 + [{"CPU": 0.5, "GPU": 1.0}] * 3
    assert (demand.total("CPU"), demand.total("GPU")) == (5.5, 3.0)


def test_only_the_workers_that_a_run_needs_have_to_fit() -> None:
    rollout = {"num_workers": 3, "min_workers": 2, "max_workers": 9}
    config = RunConfig.model_validate({"model": {"path": "m"}, "rollout": rollout})
    assert len(plan(config, []).rollout_bundles) == 2


@pytest.mark.parametrize(
    ("needed", "free", "spare", "leaving"),
    [
        ([1.0], {"a": 1.0, "b": 0.0}, 3, []),  # there is room
        ([1.0], {"a": 0.0, "b": 0.0}, 3, [1]),
        ([1.0], {"a": 0.0, "b": 0.0}, 0, []),  # none can be spared
        ([2.0], {"a": 0.0, "b": 1.0}, 3, [3]),  # one at b instead of two at a
        ([2.0, 1.0], {"a": 0.0, "b": 1.0}, 3, [3, 1]),
        ([2.0, 2.0], {"a": 0.0, "b": 0.0}, 3, []),  # all four would have to go
        ([5.0], {"a": 1.0, "b": 1.0}, 4, []),  # no host is as large
    ],
)
def test_the_fewest_workers_make_room(
    needed: list[float], free: dict[str, float], spare: int, leaving: list[int]
) -> None:
    """Two workers of one CPU each are on host a, and two on b; those that came last go first."""
    homes = {0: "a", 1: "a", 2: "b", 3: "b"}
    bundles = [{"CPU": cpus} for cpus in needed]
    nodes = {node: {"CPU": cpus} for node, cpus in free.items()}
    assert who_makes_room(bundles, nodes, homes, {"CPU": 1.0}, spare) == leaving


def test_bundles_are_packed_on_nodes() -> None:
    demand = Plan(({"CPU": 4.0},), ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}))
    require_capacity(demand, [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 2.0}])
    with pytest.raises(UserError, match=r"needs 6 CPU \+ 2 GPU for 1 learner ranks and 2 rollout workers"):
        require_capacity(demand, [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 2.0}])
    with pytest.raises(UserError, match=r"the nodes have 8 CPU; 2 CPU \+ 1 GPU"):
        require_capacity(demand, [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}])


def test_the_gpus_of_one_engine_are_on_one_node() -> None:
    """Eight GPUs on two nodes are enough for two engines of four, not for one of eight."""
    nodes = [{"CPU": 8.0, "GPU": 4.0}] * 2
    require_capacity(Plan((), ({"CPU": 1.0, "GPU": 4.0},) * 2), nodes)
    wanted = r"no node is large enough: a rollout worker needs 1 CPU \+ 8 GPU on one node.*tensor_parallel_size"
    with pytest.raises(UserError, match=wanted):
        require_capacity(Plan((), ({"CPU": 1.0, "GPU": 8.0},)), nodes)
    with pytest.raises(UserError, match=r"a learner rank needs 16 CPU on one node.*cpus_per_learner_worker"):
        require_capacity(Plan(({"CPU": 16.0},), ()), nodes)
