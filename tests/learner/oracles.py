"""Slow, obvious versions of the mathematics, in float64: loops and pairwise tensors. The tests compare with these."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def gae_loop(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, bootstrap: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The pseudo-code, token by token."""
    advantages, returns = torch.zeros_like(values), torch.zeros_like(values)
    for b in range(rewards.shape[0]):
        next_advantage = carry = 0.0
        next_value = 0.0 if bootstrap is None else float(bootstrap[b])
        for t in reversed(range(rewards.shape[1])):
            if mask[b, t]:
                value = float(values[b, t])
                delta = (float(rewards[b, t]) + carry) + gamma * next_value - value
                advantages[b, t] = delta + gamma * lam * next_advantage
                returns[b, t] = advantages[b, t] + value
                next_value, next_advantage, carry = value, float(advantages[b, t]), 0.0
            else:
                carry += float(rewards[b, t])
    return advantages, returns


def pairwise_huber(q: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> Tensor:
    """Eq 3 with the [... M K] tensor of all residuals; [... M] before the mean over levels, by autograd."""
    u = targets[..., None, :] - q[..., :, None]
    if kappa == 0.0:
        huber = u.abs()
    else:
        huber = torch.where(u.abs() <= kappa, u.square() / 2, kappa * (u.abs() - kappa / 2)) / kappa
    return ((taus[:, None] - (u < 0).to(u.dtype)).abs() * huber).mean(dim=-1)


class ThreadWorld:
    """One rank of a collective whose ranks are threads of this process."""

    def __init__(self, rank: int, slots: list[Tensor | None], barrier: threading.Barrier) -> None:
        self.rank, self._slots, self._barrier = rank, slots, barrier

    def gather(self, values: Tensor) -> Tensor:
        self._slots[self.rank] = values.detach()
        self._barrier.wait(timeout=30)
        everything = torch.cat([slot for slot in self._slots if slot is not None])
        self._barrier.wait(timeout=30)
        return everything


def on_ranks(num_ranks: int, work: Callable[[ThreadWorld], Any]) -> list[Any]:
    """Run ``work(world)`` on every rank at once; the results in rank order."""
    slots: list[Tensor | None] = [None] * num_ranks
    barrier = threading.Barrier(num_ranks)
    results: list[Any] = [None] * num_ranks
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorld(rank, slots, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]
    return results


def bisect(slope: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a non-decreasing slope changes sign, elementwise: the minimiser of a convex function."""
    for _ in range(60):
        middle = (low + high) / 2
        up = slope(middle) < 0
        low, high = torch.where(up, middle, low), torch.where(up, high, middle)
    return (low + high) / 2


def grad_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient of the sum of ``function(x)`` at a fresh copy of ``x``."""
    leaf = x.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(leaf).sum(), leaf, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad
