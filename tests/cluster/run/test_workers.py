"""What the processes of a run are started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config.run_config import RunConfig
from cluster.run.places import waiting
from cluster.run.places.placement import Plan
from cluster.run.workers import learner_spec, threads_of
from learner.config import learner_environment
from rollout.sampling.vllm_options import engine_environment


@pytest.mark.parametrize(("cpus", "threads"), [(0.25, 1), (1.0, 1), (1.9, 1), (2.0, 2), (8.0, 8)])
def test_a_process_computes_with_a_thread_for_each_whole_cpu(cpus: float, threads: int, tiny_model: Path) -> None:
    assert threads_of(cpus) == threads
    assert learner_environment(False, threads)["OMP_NUM_THREADS"] == str(threads)
    assert engine_environment(False, threads)["OMP_NUM_THREADS"] == str(threads)
    config = RunConfig.model_validate(
        {
            "model": {"path": str(tiny_model)},
            "data": {"task": {"type": "chain"}},
            "reward": {"functions": [{"type": "exact_match"}]},
            "cluster": {"cpus_per_learner_worker": cpus},
        }
    )
    assert learner_spec(config).num_threads == threads


def test_on_a_gpu_the_libraries_choose_their_threads() -> None:
    assert "OMP_NUM_THREADS" not in learner_environment(True, 4) | engine_environment(True, 4)


class Group:
    """A placement group that becomes ready, or not."""

    made: list[Group] = []  # noqa: RUF012  # emptied by each test

    def __init__(self, bundles: list[Any], strategy: str) -> None:
        self.bundles, self.strategy, self.is_removed = bundles, strategy, False
        self.made.append(self)

    def wait(self, timeout_s: float) -> bool:
        return self.strategy not in Group.never_ready

    def wait_for_room(self, timeout_s: float, option: str, *_: Any) -> None:
        if not self.wait(timeout_s):
            raise TimeoutError(f"no room in the cluster for {timeout_s:g} s ({option})")

    never_ready: tuple[str, ...] = ()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Group]:
    """Of two nodes with two GPUs each; nothing of Ray's is started."""
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}] * 2
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(waiting, "placement_group", Group)
    monkeypatch.setattr(waiting, "remove_placement_group", lambda group: setattr(group, "is_removed", True))
    monkeypatch.setattr(waiting, "wait_for_room", Group.wait_for_room)
    monkeypatch.setattr(Group, "made", [])
    monkeypatch.setattr(Group, "never_ready", ())
    return Group


RANK, WORKER = {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}


def test_learner_ranks_get_one_node_where_they_can_have_it(cluster: type[Group]) -> None:
    learners, others = waiting.reserve(Plan((RANK, RANK), (WORKER,), ({"CPU": 2.0},)), 9.0, print, print)
    assert (others.strategy, others.bundles) == ("PACK", [WORKER, {"CPU": 2.0}])
    assert (learners.strategy, learners.bundles) == ("STRICT_PACK", [RANK, RANK])
    assert cluster.made == [others, learners]


def test_learner_ranks_that_fit_no_single_node_are_packed_on_several(cluster: type[Group]) -> None:
    cluster.never_ready = ("STRICT_PACK",)
    learners, _ = waiting.reserve(Plan((RANK,) * 3, ()), 9.0, print, print)
    assert [(group.strategy, group.is_removed) for group in cluster.made] == [("STRICT_PACK", True), ("PACK", False)]
    assert learners is cluster.made[1]


def test_evaluation_has_no_learner_ranks(cluster: type[Group]) -> None:
    assert waiting.reserve(Plan((), (WORKER,)), 9.0, print, print) == (None, cluster.made[0])


def test_a_busy_cluster_gets_back_what_was_reserved(cluster: type[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "wait", lambda group, timeout_s: group.bundles == [WORKER])
    with pytest.raises(TimeoutError, match=r"no room in the cluster for 9 s"):
        waiting.reserve(Plan((RANK,), (WORKER,)), 9.0, print, print)
    assert [group.is_removed for group in cluster.made] == [True, True, True]
