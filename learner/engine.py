"""What the update needs of an optimisation engine. ``deepspeed_engine.py`` is the one used in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn


class NonFiniteError(RuntimeError):
    """A loss or a gradient is NaN or infinite; the weights were left as they were."""


class TrainEngine(Protocol):
    """One model with its optimiser, replicated or split over the ranks.

    Every method is a collective: all ranks call it in the same order, and with the same number of forward and backward
    passes per step.
    """

    module: nn.Module
    num_parameters: int

    def forward(self, **inputs: object) -> dict[str, Tensor]:
        """Run the model. Under ``torch.no_grad()`` nothing is kept for a backward pass."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of ``loss`` to that of the step.

        Args:
            loss: this micro-batch's and this rank's share of the global loss; the step's gradient is that of the *sum*
                over all micro-batches and ranks.
            last: whether this is the last micro-batch before :meth:`step`.
        """
        ...

    def step(self, lr: float) -> float:
        """Clip the accumulated gradient, update the weights with learning rate ``lr`` and clear the gradient.

        Returns:
            The global 2-norm of the gradient before clipping.

        Raises:
            NonFiniteError: the norm is not finite. Raised on every rank; the weights are left as they were.
        """
        ...

    def full_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and full tensor of each parameter, on the CPU. Only rank 0 gets any; every rank must exhaust it."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write weights and optimiser state into ``folder``, which all ranks see."""
        ...

    def load_state(self, folder: Path, num_ranks: int, scratch: Path) -> None:
        """Restore what :meth:`save_state` wrote.

        Args:
            num_ranks: number of ranks that wrote it.
            scratch: where files may be put if they have to be rewritten for another number of ranks; all ranks see it,
                and the caller removes it.
        """
        ...

    def close(self) -> None:
        """Free the engine."""
        ...
