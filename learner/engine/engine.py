"""What the update needs of an optimisation engine. ``deepspeed_engine.py`` is the one used in training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from learner.engine.state_copy import StateCopy
from learner.metrics import Metrics


class UpdateRefused(RuntimeError):
    """An update, or one optimiser step of it, must not happen. Raised on every rank alike, before anything changed.

    Attributes:
        metrics: what was measured on the way.
    """

    def __init__(self, message: str, metrics: Metrics | None = None) -> None:
        super().__init__(message)
        self.metrics: Metrics = metrics or {}


class NonFiniteError(UpdateRefused):
    """A loss, a gradient, a log-probability or an estimate is NaN or infinite."""


class MismatchError(UpdateRefused):
    """Sampler and learner disagree about the log-probabilities of sampled tokens by more than allowed."""


class WeightForm(Protocol):
    """Another form of a model's weights: other names, and tensors that are cut or put together."""

    def group_of(self, name: str) -> str:
        """Weights of the same group have to be converted in one call; by default a weight's own name."""
        ...

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert whole groups, by name. Tensors on the device ``meta`` give names and shapes alone."""
        ...


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

    def grad_bound(self) -> Tensor:
        """[1], upper bound of the norm of this rank's accumulated gradient; not finite if the gradient is not.

        To be asked once a step, after the last backward pass. No collective.
        """
        ...

    def discard(self) -> None:
        """Forget the accumulated gradient, in place of :meth:`step`; weights and optimiser state stay as they are."""
        ...

    def step(self, lr: float) -> float:
        """Clip the accumulated gradient, update the weights with learning rate ``lr`` and clear the gradient.

        Returns:
            The global 2-norm of the gradient before clipping.

        Raises:
            FloatingPointError: the norm is not finite, which :meth:`grad_bound` would have told. Raised on every rank;
                the weights are left as they were.
        """
        ...

    def full_weights(self, form: WeightForm | None = None, trained_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Name and a full copy of each parameter, on the CPU. Only rank 0 gets any; every rank must exhaust it.

        Args:
            form: in which they are given; by default as the module has them.
            trained_only: leave out those without gradients.
        """
        ...

    def weight_shapes(self, form: WeightForm | None = None) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, number format and full shape of each parameter, on every rank. Nothing is gathered."""
        ...

    def device_weights(self, form: WeightForm | None = None) -> Iterator[tuple[str, Tensor]]:
        """Name and full tensor of each parameter on the rank's device; every rank gets all and must exhaust it.

        A tensor stays as it is while somebody holds it, whichever CUDA stream reads it, and nothing else keeps it: no
        more than one chunk is gathered at a time. Nobody may write to it.
        """
        ...

    def copy_state(self) -> StateCopy:
        """Copy this rank's part of weights and optimiser state; nothing is written to disk."""
        ...

    def load_state(self, folder: Path, num_ranks: int, scratch: Path) -> None:
        """Restore what the copies of all ranks wrote into ``folder``.

        Args:
            num_ranks: number of ranks that wrote it.
            scratch: where files may be put if they have to be rewritten for another number of ranks; all ranks see it,
                and the caller removes it.
        """
        ...

    def close(self) -> None:
        """Free the engine."""
        ...
