"""A learner rank's end of the NCCL route: which groups are open, and how engines, which are actors, are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import ray

from actors.faults import WorkerLost
from actors.pools.loss import failure

if TYPE_CHECKING:
    from learner.update.learner import Learner
    from rollout.sampling.vllm_transfer import NcclSender


class PolicyOnDevice:
    """The policy's weights where they are, for :func:`rollout.sampling.vllm_transfer.open_nccl_sender`."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def shapes(self) -> list[tuple[str, Any, tuple[int, ...]]]:
        """See :class:`rollout.sampling.vllm_transfer.Weights`."""
        from learner.checkpoint.published import published_shapes

        return published_shapes(self._learner)

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """See :class:`rollout.sampling.vllm_transfer.Weights`."""
        from learner.checkpoint.published import published_tensors

        return published_tensors(self._learner)


class WeightSender:
    """Sends the policy's weights to engines; every rank has one, and all ranks make the same calls.

    Every method that reaches engines returns why one of them was lost on the way, empty if none was: the others wait
    for the rest of the weights then, and are to be ended too. What else goes wrong is raised.

    Args:
        learner: whose policy it is.
        rank: of this process; 0 is the one that broadcasts.
    """

    def __init__(self, learner: Learner, rank: int) -> None:
        self._weights, self._rank = PolicyOnDevice(learner), rank
        self._group: NcclSender | None = None

    def open(self, engines: Sequence[Any], engine_world_size: int, address: str) -> str:
        """Open the group with the rollout workers ``engines`` in place of the one that is open."""
        self.close()
        try:
            self._group = self._opened(engines, engine_world_size, address)
        except WorkerLost as lost:
            return str(lost)
        return ""

    def send(self) -> str:
        """Send to the group that is open; a group that has failed is closed."""
        if self._group is None:
            raise RuntimeError("open() has not been called, or the group has failed")
        try:
            self._group.send()
        except WorkerLost as lost:
            self.close()
            return str(lost)
        except BaseException:
            self.close()
            raise
        return ""

    def send_to(self, engine: Any, engine_world_size: int, address: str) -> str:
        """Send to one more engine through a group of its own, which is closed again."""
        try:
            with closing(self._opened([engine], engine_world_size, address)) as group:
                group.send()
        except WorkerLost as lost:
            return str(lost)
        return ""

    def close(self) -> None:
        """Leave the group that is open."""
        group, self._group = self._group, None
        if group is not None:
            group.close()

    def _opened(self, engines: Sequence[Any], engine_world_size: int, address: str) -> NcclSender:
        from rollout.sampling.vllm_transfer import open_nccl_sender

        def call(stage: str, payloads: Sequence[dict[str, Any] | None]) -> None:
            call_engines(engines, stage, payloads)

        return open_nccl_sender(self._weights, self._rank, call, len(engines), engine_world_size, address)


def call_engines(engines: Sequence[Any], stage: str, payloads: Sequence[dict[str, Any] | None]) -> None:
    """Run one stage on all engines and wait for them; one that fails ends the wait, whatever the others do.

    Raises:
        WorkerLost: one is gone.
        WorkerError: one reported an error.
    """
    calls = [engine.transfer.remote(stage, payload) for engine, payload in zip(engines, payloads, strict=True)]
    waiting = list(calls)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(ready)
        except Exception as error:  # of the engine, or that it is gone
            raise failure(f"engine {calls.index(ready)}", f"transfer ({stage})", error) from error
