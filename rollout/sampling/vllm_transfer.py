"""The learner's end of vLLM's NCCL weight transfer. Needs GPUs, and vLLM in the learner's process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

CallEngines = Callable[[str, list[dict[str, Any] | None]], None]
"""``(stage, one payload an engine)``: run one stage of the transfer on every engine and wait for all."""


class _Client:
    """What vLLM's trainer side calls on the inference side, fanned out over all engines."""

    def __init__(self, call: CallEngines, num_engines: int, engine_world_size: int) -> None:
        self._call = call
        self._num_engines = num_engines
        self._engine_world_size = engine_world_size

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each engine's ranks follow those of the engine before it; rank 0 is the learner."""
        payloads: list[dict[str, Any] | None] = [
            {**init_info, "rank_offset": 1 + index * self._engine_world_size} for index in range(self._num_engines)
        ]
        self._call("init", payloads)

    def start_weight_update(self) -> None:
        self._call("start", [None] * self._num_engines)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._call("update", [update_info] * self._num_engines)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call("finish", [None] * self._num_engines)


def open_nccl_sender(
    parameters: Callable[[], Iterator[tuple[str, Any]]],
    rank: int,
    call: CallEngines,
    num_engines: int,
    engine_world_size: int,
    address: str,
) -> Any:
    """Open the NCCL group of learner and engines; returns an object with ``send_weights()``.

    Called on every learner rank; only rank 0 joins the NCCL group, the others take part in gathering.

    Args:
        parameters: yields all ``(name, full tensor)`` afresh at each call, a collective under ZeRO-3.
        call: runs one stage on all engines.
        address: host of this process as the engines see it.
    """
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    class Source(WeightSource):
        def __init__(self) -> None:
            self._metadata = [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in parameters()]

        def metadata(self) -> list[ParamMeta]:
            return self._metadata

        # Afresh each time: under ZeRO-3 the iteration itself gathers the shards, on all ranks together.
        def __iter__(self) -> Iterator[tuple[str, Any]]:
            return parameters()

    init = NCCLTrainerInitInfo(
        rank=rank,
        master_address=address,
        master_port=_free_port(),
        world_size=1 + num_engines * engine_world_size,  # rank 0 of the learner, and every engine's every worker
    )
    client = _Client(call, num_engines, engine_world_size)
    return WeightTransferTrainerFactory.trainer_init(init, client=client, source=Source())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
