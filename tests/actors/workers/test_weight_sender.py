"""A learner rank's groups with engines: which are open, which are closed, and what a lost engine does to them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

import rollout.sampling.vllm_transfer
from actors.faults import WorkerDied, WorkerError
from actors.workers.weight_sender import WeightSender, call_engines
from learner.update.learner import Learner

LOST = WorkerDied("engine 0", "transfer (update)", "its process died")


class Group:
    """What :func:`open_nccl_sender` opens."""

    made: list[Group] = []  # noqa: RUF012  # emptied by the fixture
    raises: Exception | None = None

    def __init__(self, engines: int, world_size: int, address: str) -> None:
        self.facts = (engines, world_size, address)
        self.calls: list[str] = []
        self.made.append(self)

    def send(self) -> None:
        self.calls.append("send")
        if self.raises is not None:
            raise self.raises

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> WeightSender:
    monkeypatch.setattr(Group, "made", [])
    monkeypatch.setattr(Group, "raises", None)

    def opened(weights: Any, rank: int, call: Any, num_engines: int, engine_world_size: int, address: str) -> Group:
        assert rank == 1
        return Group(num_engines, engine_world_size, address)

    monkeypatch.setattr(rollout.sampling.vllm_transfer, "open_nccl_sender", opened)
    return WeightSender(cast(Learner, None), rank=1)


def test_a_group_serves_until_another_takes_its_place(sender: WeightSender) -> None:
    assert sender.open(["a", "b"], 4, "node") == ""
    assert [sender.send(), sender.send()] == ["", ""]
    assert sender.send_to("c", 4, "node") == ""
    assert sender.open(["a", "b", "c"], 4, "node") == ""
    first, alone, second = Group.made
    assert [group.facts for group in Group.made] == [(2, 4, "node"), (1, 4, "node"), (3, 4, "node")]
    assert (first.calls, alone.calls, second.calls) == (["send", "send", "close"], ["send", "close"], [])


def test_a_lost_engine_is_told_and_its_group_closed(sender: WeightSender, monkeypatch: pytest.MonkeyPatch) -> None:
    sender.open(["a"], 1, "node")
    Group.raises = LOST
    assert sender.send() == sender.send_to("b", 1, "node") == str(LOST)
    assert [group.calls for group in Group.made] == [["send", "close"]] * 2
    with pytest.raises(RuntimeError, match="has failed"):
        sender.send()

    def opened(*_: object) -> Group:
        raise LOST

    monkeypatch.setattr(rollout.sampling.vllm_transfer, "open_nccl_sender", opened)
    assert sender.open(["a"], 1, "node") == sender.send_to("a", 1, "node") == str(LOST)


def test_what_is_no_loss_is_raised_and_the_group_closed(sender: WeightSender) -> None:
    sender.open(["a"], 1, "node")
    Group.raises = ValueError("no such tensor")
    with pytest.raises(ValueError, match="no such tensor"):
        sender.send()
    assert Group.made[0].calls == ["send", "close"]


class Handle:
    """An engine's worker; its answer is what the payload says."""

    @property
    def transfer(self) -> Any:
        class Call:
            remote = staticmethod(lambda stage, payload: (stage, payload))

        return Call


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (ActorDiedError(), WorkerDied, "its process died"),
        (RayTaskError("transfer", "trace", ValueError("no such tensor")), WorkerError, "ValueError: no such tensor"),
    ],
)
def test_an_engine_that_fails_ends_the_wait_for_all(
    error: Exception, kind: type[WorkerError], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first engine never answers: it is the second one whose answer is there."""
    payloads: list[Any] = ["never", error]

    def wait(calls: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        assert ("update", "never") in calls
        return [calls[-1]], calls[:-1]

    def get(call: tuple[str, Any]) -> None:
        assert call[1] != "never"
        raise call[1]

    monkeypatch.setattr("ray.wait", wait)
    monkeypatch.setattr("ray.get", get)
    with pytest.raises(WorkerError, match=rf"engine 1 failed in transfer \(update\): {told}") as raised:
        call_engines([Handle(), Handle()], "update", payloads)
    assert type(raised.value) is kind
