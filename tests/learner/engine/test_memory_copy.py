"""Copies in memory: equal, independent, and no larger than what they are copied from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.engine.memory_copy import copy_to_memory


@dataclass
class Scaler:
    scale: float
    history: list[float]


def saved_bytes(value: Any) -> int:
    torch.save(value, buffer := io.BytesIO())
    return len(buffer.getvalue())


def test_a_copy_is_equal_and_stays_as_it_is() -> None:
    flat = torch.arange(12.0)
    tied = torch.nn.Parameter(torch.ones(3))
    state = {
        "views": [flat[:4].view(2, 2), flat[4:].view(2, 4).t()],
        "tied": (tied, tied.detach()),
        "scaler": Scaler(2.0, [1.0]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.empty(0, 5),
        "text": "x",
    }
    expected = torch.arange(12.0)
    copy, num_bytes = copy_to_memory(state)
    assert num_bytes == 12 * 4 + 3 * 4 + 2 * 2
    size = saved_bytes(state)
    flat.zero_()
    with torch.no_grad():
        tied.zero_()
    state["scaler"].history.append(5.0)  # type: ignore[attr-defined]
    state["text"] = "y"
    assert torch.equal(copy["views"][0], expected[:4].view(2, 2))
    assert torch.equal(copy["views"][1], expected[4:].view(2, 4).t())
    assert copy["views"][1].stride() == (1, 4)
    assert copy["tied"][0].tolist() == copy["tied"][1].tolist() == [1.0, 1.0, 1.0]
    assert copy["scaler"] == Scaler(2.0, [1.0])
    assert copy["half"].dtype == torch.bfloat16 and copy["empty"].shape == (0, 5)
    assert copy["text"] == "x"
    assert abs(saved_bytes(copy) - size) < 100

    def pointers(tensors: list[Tensor]) -> set[int]:
        return {tensor.untyped_storage().data_ptr() for tensor in tensors}

    assert len(pointers(copy["views"])) == len(pointers(list(copy["tied"]))) == 1  # shared as in the original
    assert not pointers([*copy["views"], *copy["tied"]]) & pointers([flat, tied])
