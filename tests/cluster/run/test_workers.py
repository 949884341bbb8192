"""What the processes of a run are started with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.config.run_config import RunConfig
from cluster.run.places import rooms, waiting
from cluster.run.places.placement import Plan
from cluster.run.places.rooms import RolloutRooms
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

    def __init__(self, bundles: list[Any], strategy: str, name: str = "", _soft_target_node_id: str = "") -> None:
        self.bundles, self.strategy, self.is_removed = bundles, strategy, False
        self.made.append(self)

    def wait(self, timeout_s: float) -> bool:
        return Group.has_room(self)

    has_room: Callable[[Group], bool] = staticmethod(lambda group: True)


def wait_for_room(groups: Sequence[Group], timeout_s: float, option: str, *_: Any) -> None:
    if not all(group.wait(timeout_s) for group in groups):
        raise TimeoutError(f"no room in the cluster for {timeout_s:g} s ({option})")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Group]:
    """Of two nodes with two GPUs each; nothing of Ray's is started."""
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}] * 2
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    for module in (waiting, rooms):
        monkeypatch.setattr(module, "placement_group", Group)
        monkeypatch.setattr(module, "remove_placement_group", lambda group: setattr(group, "is_removed", True))
    monkeypatch.setattr(waiting, "wait_for_room", wait_for_room)
    monkeypatch.setattr(RolloutRooms, "release", give_back_all)
    monkeypatch.setattr(Group, "made", [])
    monkeypatch.setattr(Group, "has_room", staticmethod(lambda group: True))
    return Group


def give_back_all(kept: RolloutRooms, all_of_them: bool) -> None:
    for index in list(kept._groups):
        kept.give_back(index)


RANK, WORKER, MODEL = {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}, {"CPU": 2.0}


def reserve(demand: Plan, num_rollouts: int) -> tuple[Any, Any, int, RolloutRooms]:
    kept = RolloutRooms(WORKER)
    return *waiting.reserve(demand, kept, num_rollouts, 9.0, print, print), kept


def test_learner_ranks_get_one_node_where_they_can_have_it(cluster: type[Group]) -> None:
    learners, served, number, kept = reserve(Plan((RANK, RANK), (WORKER,), (MODEL,)), 1)
    assert (served.strategy, served.bundles) == ("PACK", [MODEL])
    assert (learners.strategy, learners.bundles) == ("STRICT_PACK", [RANK, RANK])
    (room,) = kept.groups
    assert number == 1 and room.bundles == [WORKER]
    assert cluster.made == [learners, served, room]


def test_learner_ranks_that_fit_no_single_node_are_packed_on_several(cluster: type[Group]) -> None:
    cluster.has_room = staticmethod(lambda group: group.strategy != "STRICT_PACK")
    learners, _, _, _ = reserve(Plan((RANK,) * 3, ()), 0)
    assert [(group.strategy, group.is_removed) for group in cluster.made] == [("STRICT_PACK", True), ("PACK", False)]
    assert learners is cluster.made[1]


def test_evaluation_has_no_learner_ranks(cluster: type[Group]) -> None:
    learners, served, number, kept = reserve(Plan((), (WORKER,)), 1)
    assert (learners, served, number, kept.groups) == (None, None, 1, cluster.made)


def test_workers_that_the_run_can_do_without_get_what_the_others_have_left(cluster: type[Group]) -> None:
    """The first is needed. Of the three others, asked for after the learner, the last finds room."""
    cluster.has_room = staticmethod(lambda group: Group.made.index(group) not in (2, 3))
    _, _, number, kept = reserve(Plan((RANK,), (WORKER,)), 4)
    assert [group.bundles for group in cluster.made] == [[RANK], [WORKER], [WORKER], [WORKER], [WORKER]]
    assert (number, kept.group(0), kept.group(1)) == (2, cluster.made[1], cluster.made[4])
    assert [group.is_removed for group in cluster.made] == [False, False, True, True, False]


def test_the_others_choose_first_where_the_learner_has_left_them_no_room(cluster: type[Group]) -> None:
    cluster.has_room = staticmethod(lambda group: group.bundles == [RANK] or cluster.made[0].is_removed)
    learners, _, number, kept = reserve(Plan((RANK,), (WORKER,)), 1)
    assert [group.bundles for group in cluster.made] == [[RANK], [WORKER], [RANK]]
    assert [group.is_removed for group in cluster.made] == [True, False, False]
    assert (learners, number, kept.group(0)) == (cluster.made[2], 1, cluster.made[1])


def test_a_busy_cluster_gets_back_what_was_reserved(cluster: type[Group]) -> None:
    cluster.has_room = staticmethod(lambda group: group.bundles == [RANK])
    with pytest.raises(TimeoutError, match=r"no room in the cluster for 9 s"):
        reserve(Plan((RANK,), (WORKER,)), 2)
    assert [group.is_removed for group in cluster.made] == [True, True]
