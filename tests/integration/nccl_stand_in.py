"""What vLLM's NCCL weight transfer needs of CUDA, for a CPU: a communicator, streams that do nothing, one device."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch

POLL_S = 0.05
DEADLINE_S = 60.0


class StoreCommunicator:
    """In place of vLLM's ``PyNcclCommunicator``: tensors go through the store at which the group has met.

    As with NCCL, a broadcast is over for the sender when everybody has taken part, or when the group is destroyed.
    """

    made: list[StoreCommunicator] = []  # noqa: RUF012  # of this process, for the test

    def __init__(self, group: Any, device: Any) -> None:
        self.group, self.device = group, torch.device("cpu")
        self.is_destroyed = threading.Event()
        self._num_broadcasts = 0
        self.made.append(self)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        """As ``PyNcclCommunicator.broadcast``."""
        if self.is_destroyed.is_set():
            return
        assert tensor.device == self.device, f"made for {self.device}, but the tensor is on {tensor.device}"
        self._num_broadcasts += 1
        key = f"taken-{self._num_broadcasts}"
        if self.group.rank != src:
            tensor.copy_(self.group.broadcast_obj(None, src))
            self.group.store.set(f"{key}-{self.group.rank}", "1")
            return
        self.group.broadcast_obj(tensor, src)
        keys = [f"{key}-{rank}" for rank in range(self.group.world_size) if rank != src]
        for _ in range(int(DEADLINE_S / POLL_S)):
            try:
                self.group.store.wait(keys, timedelta(seconds=POLL_S))
                return
            except torch.distributed.DistStoreError:
                if self.is_destroyed.is_set():
                    return
        raise AssertionError(f"nobody has taken part in a broadcast for {DEADLINE_S} s, and nobody has ended it")

    def destroy(self) -> None:
        """As ``PyNcclCommunicator.destroy``."""
        self.is_destroyed.set()


def install(worker: Any = None, patch: Any = setattr) -> None:
    """In this process, for ever: or with the ``setattr`` of a monkeypatch."""
    from vllm.distributed.device_communicators import pynccl
    from vllm.distributed.weight_transfer import packed_tensor

    idle = SimpleNamespace(synchronize=lambda: None)
    patch(pynccl, "PyNcclCommunicator", StoreCommunicator)
    patch(packed_tensor, "_get_streams", lambda device, number: (idle,) * number)
    patch(torch.accelerator, "current_device_index", lambda: 0)
    patch(torch.accelerator, "synchronize", lambda: None)
    patch(torch.cuda, "stream", lambda stream: nullcontext())


def destroyed(worker: Any = None) -> list[bool]:
    """Which of the groups that were made in this process were left."""
    return [made.is_destroyed.is_set() for made in StoreCommunicator.made]
