"""One optimiser step of several models at once: all of them take it, on all ranks, or none does on any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.engine.engine import NonFiniteError, TrainEngine
from learner.maths.collective import Collective
from learner.metrics import Mean, Metrics

_MAX_BOUND = 1e18
"""Largest bound of a gradient's norm that is let through: its square is finite in float32."""


@dataclass(frozen=True, slots=True)
class ModelPass:
    """A model's finished backward passes, before its optimiser step.

    Attributes:
        name: for metrics and messages.
        engine: the model.
        lr: learning rate of the step.
        share: [1], this rank's share of the loss.
    """

    name: str
    engine: TrainEngine
    lr: float
    share: Tensor


def backward(engine: TrainEngine, losses: Iterator[Tensor], num_losses: int) -> Tensor:
    """Backward through the loss of every micro-batch; returns their sum, [1]."""
    share = torch.zeros(1)
    for i, loss in enumerate(losses, start=1):
        engine.backward(loss, last=i == num_losses)
        share = share.to(loss.device) + loss.detach()
    return share


def nothing(outputs: dict[str, Tensor]) -> Tensor:
    """A loss of 0 that still runs backward through every output, so that all ranks do the same communication."""
    return torch.stack([0.0 * value.sum() for value in outputs.values() if value.requires_grad]).sum()


def check(passes: Sequence[ModelPass], num_bad_logprobs: Tensor, world: Collective, where: str) -> Metrics:
    """The loss of each model, if every number of every rank is finite.

    Args:
        num_bad_logprobs: [1], log-probabilities of sampled tokens on this rank that are not finite.
        where: start of the message.

    Raises:
        NonFiniteError: one is not. No engine has stepped or discarded anything.
    """
    bounds = [done.engine.grad_bound() for done in passes]
    columns = [num_bad_logprobs, *(x for done, bound in zip(passes, bounds, strict=True) for x in (done.share, bound))]
    everyone = world.gather(torch.cat([column.to(num_bad_logprobs) for column in columns])[None])
    problem = _problem(passes, everyone)
    if problem:
        raise NonFiniteError(f"{where}: {problem}")
    losses = {f"{done.name}/loss": everyone[:, 1 + 2 * i].sum().item() for i, done in enumerate(passes)}
    return {key: Mean(loss, 1.0) for key, loss in losses.items()}


def _problem(passes: Sequence[ModelPass], everyone: Tensor) -> str:
    """What is not finite in ``everyone`` [rank 1 + 2 * passes]: bad log-probabilities, then loss and bound of each."""
    bad = everyone[:, 0] > 0
    if bad.any():
        return f"{int(everyone[:, 0].sum())} log-probabilities of the policy are not finite, {_first(bad)}"
    for index, done in enumerate(passes):
        loss, bound = everyone[:, 1 + 2 * index], everyone[:, 2 + 2 * index]
        if not loss.isfinite().all():
            return f"the {done.name} loss is not finite ({loss.sum().item()}) {_first(~loss.isfinite())}"
        bad = ~(bound <= _MAX_BOUND)  # NaN too
        if bad.any():
            return f"the {done.name} gradient is not finite (its norm is up to {bound.sum().item():.3g}) {_first(bad)}"
    return ""


def _first(bad: Tensor) -> str:
    return f"on rank {int(bad.nonzero()[0])}"
