"""The learner's end of vLLM's NCCL weight transfer. Needs GPUs, and vLLM in the learner's process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

CallEngines = Callable[[str, Sequence[dict[str, Any] | None]], None]
"""``(stage, one payload an engine)``: run one stage of the transfer on every engine; the first failure is raised."""


class Weights(Protocol):
    """The weights that are sent, afresh at each call."""

    def shapes(self) -> list[tuple[str, Any, tuple[int, ...]]]:
        """Name, torch dtype and full shape of each, without gathering any."""
        ...

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """The same names with tensors on the device; under ZeRO-3 the iteration gathers, on all ranks together."""
        ...


class _Client:
    """What vLLM's trainer side calls on the inference side, fanned out over all engines.

    Attributes:
        failure: what an engine raised. The others then wait for weights that will never come.
        on_failure: told of it at once, in the thread that waits for the engines.
    """

    def __init__(self, call: CallEngines, num_engines: int, engine_world_size: int) -> None:
        self._call = call
        self._num_engines = num_engines
        self._engine_world_size = engine_world_size
        self.failure: Exception | None = None
        self.on_failure: Callable[[], None] = lambda: None

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each engine's ranks follow those of the engine before it; rank 0 is the learner."""
        offsets = (1 + index * self._engine_world_size for index in range(self._num_engines))
        self._run("init", [{**init_info, "rank_offset": offset} for offset in offsets])

    def start_weight_update(self) -> None:
        self._run("start", [None] * self._num_engines)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._run("update", [update_info] * self._num_engines)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._run("finish", [None] * self._num_engines)

    def _run(self, stage: str, payloads: Sequence[dict[str, Any] | None]) -> None:
        try:
            self._call(stage, payloads)
        except Exception as error:  # whatever it is, the sender must not wait for that engine
            self.failure = error
            self.on_failure()
            raise


class NcclSender:
    """One NCCL group of a learner and some engines.

    Args:
        trainer: vLLM's end of it.
        source: what that reads.
        client: through which it calls the engines.
    """

    def __init__(self, trainer: Any, source: Any, client: _Client) -> None:
        self._trainer, self._source, self._client = trainer, source, client
        # vLLM's broadcast waits for a lost engine for ever; without its group it ends at once.
        client.on_failure = trainer.shutdown

    def send(self) -> None:
        """Gather and broadcast all weights. Called by every rank; on return nothing reads the weights any more.

        Raises:
            Exception: what an engine raised, or what went wrong here. The group is of no use afterwards, and engines
                may wait in it for ever: they are to be ended.
        """
        try:
            self._trainer.send_weights()
        except Exception as error:
            self._source.exhaust()
            raise self._client.failure or error from error

    def close(self) -> None:
        """Leave the group and free its buffers."""
        self._trainer.shutdown()


def open_nccl_sender(
    weights: Weights,
    rank: int,
    call: CallEngines,
    num_engines: int,
    engine_world_size: int,
    address: str,
) -> NcclSender:
    """Open the NCCL group of learner and engines.

    Called on every learner rank; only rank 0 joins the NCCL group, the others take part in gathering.

    Args:
        call: runs one stage on all engines.
        address: host of this process as the engines see it.

    Raises:
        Exception: what an engine raised, or what went wrong here.
    """
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    client = _Client(call, num_engines, engine_world_size)

    class Source(WeightSource):  # type: ignore[misc]  # vLLM is not analysed, so its classes are Any
        _rest: Iterator[tuple[str, Any]] = iter(())

        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(name, dtype, shape) for name, dtype, shape in weights.shapes()]

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            self._rest = weights.tensors()
            for named in self._rest:
                if client.failure is not None:  # the group is gone, nothing may be broadcast any more
                    raise client.failure
                yield named

        def exhaust(self) -> None:
            """Gather what is left: the other ranks do, and would wait for this one."""
            for _ in self._rest:
                pass

    init = NCCLTrainerInitInfo(
        rank=rank,
        master_address=address,
        master_port=_free_port(),
        world_size=1 + num_engines * engine_world_size,  # rank 0 of the learner, and every engine's every worker
    )
    source = Source()
    try:
        trainer = WeightTransferTrainerFactory.trainer_init(init, client=client, source=source)
    except Exception as error:
        raise client.failure or error from error
    return NcclSender(trainer, source, client)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
