"""The newest responses, from which the value model learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Window:
    """The newest responses: what the value model sees of them, their cells, and their own names.

    Attributes:
        inputs: [window inputs].
        keys: [window 2], prompt and answer.
        seeds: [window].
    """

    def __init__(self, num_inputs: int) -> None:
        self.inputs = torch.zeros(0, num_inputs)
        self.keys = torch.zeros(0, 2, dtype=torch.int64)
        self.seeds = torch.zeros(0, dtype=torch.int64)

    def add(self, inputs: Tensor, keys: Tensor, seeds: Tensor, size: int) -> None:
        """Append, and drop the oldest beyond ``size``."""
        self.inputs = torch.cat([self.inputs, inputs])[-size:]
        self.keys = torch.cat([self.keys, keys])[-size:]
        self.seeds = torch.cat([self.seeds, seeds])[-size:]

    def keep(self, chosen: Tensor) -> None:
        """Drop the responses where ``chosen`` [window] is false."""
        if not bool(chosen.all()):
            self.inputs, self.keys, self.seeds = self.inputs[chosen], self.keys[chosen], self.seeds[chosen]

    def state_dict(self) -> dict[str, Any]:
        """All of it, for the checkpoint."""
        return {"inputs": self.inputs, "keys": self.keys, "seeds": self.seeds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.inputs, self.keys, self.seeds = state["inputs"], state["keys"], state["seeds"]
