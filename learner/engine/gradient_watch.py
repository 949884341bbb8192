"""Whether a gradient is finite, known before an optimiser sees it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GradientWatch:
    """Adds up the norms of all gradients that reach a model's parameters, without a copy and without a wait.

    By the triangle inequality the sum is at least the norm of the accumulated gradient, so a sum that is finite and
    not huge proves that the gradient is. It sees what the backward pass gives, before ranks exchange or split anything.
    """

    def __init__(self, module: nn.Module) -> None:
        self._sum: Tensor | None = None
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._see)

    def _see(self, grad: Tensor) -> None:
        norm = torch.linalg.vector_norm(grad.detach(), dtype=torch.float32)
        self._sum = norm if self._sum is None else self._sum + norm

    def take(self) -> Tensor:
        """[1], the sum since the last call."""
        total, self._sum = self._sum, None
        return torch.zeros(1) if total is None else total.reshape(1)
