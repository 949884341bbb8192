"""The running scale s of returns, in whose units the distributional critic's losses are taken."""

from __future__ import annotations

from torch import Tensor


class RunningScale:
    """Exponential moving average of the standard deviation of returns (our choice).

    The average is corrected for its start, so the first batch counts in full. A batch whose returns do not vary (below
    ``floor``) says nothing about the scale and is skipped; until the first that does, s is ``initial``.

    Args:
        initial: scale before any batch, in reward units.
        decay: of the average, per batch.
        floor: least scale.
    """

    def __init__(self, initial: float, decay: float = 0.99, floor: float = 1e-3) -> None:
        self.initial, self.decay, self.floor = initial, decay, floor
        self.total = self.weight = 0.0

    def update(self, returns: Tensor) -> float:
        """Take in the returns [n] of *all* ranks, so that every rank keeps the same scale; returns the new s."""
        std = float(returns.double().std(correction=0)) if returns.numel() > 1 else 0.0
        if std >= self.floor:
            self.total = self.decay * self.total + (1.0 - self.decay) * std
            self.weight = self.decay * self.weight + (1.0 - self.decay)
        return self.value

    @property
    def value(self) -> float:
        """The current s."""
        return max(self.floor, self.total / self.weight) if self.weight else max(self.floor, self.initial)

    def state_dict(self) -> dict[str, float]:
        """The two sums."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the two sums."""
        self.total, self.weight = float(state["total"]), float(state["weight"])
