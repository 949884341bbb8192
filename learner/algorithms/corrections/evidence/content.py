"""What a response says, as the frozen starting model reads it: its last hidden state in few numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_MIN_SPREAD = 1e-4


class EndStateProjection:
    """Random directions of the last hidden state from which the last token of a response was predicted.

    Random ones keep distances (Johnson-Lindenstrauss), need no data, and are the same on every rank. Each number of the
    state is first measured by its spread among the first responses, since in many models a few are far larger than all
    others.

    Args:
        size: directions.
        seed: of them.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.centre: Tensor | None = None
        self.spread: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        """[n dim] float32 -> [n size]; n of the first call at least 2."""
        if self.centre is None or self.spread is None:
            self.spread, self.centre = torch.std_mean(states, dim=0)
        dim = states.shape[1]
        directions = torch.randn(dim, self.size, generator=torch.Generator().manual_seed(self.seed)) * dim**-0.5
        projected: Tensor = ((states - self.centre) / self.spread.clamp(min=_MIN_SPREAD)) @ directions
        return projected

    def state_dict(self) -> dict[str, Any]:
        """What the first responses fixed."""
        return {"centre": self.centre, "spread": self.spread}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.centre, self.spread = state["centre"], state["spread"]
