"""A value for each prompt that lasts: a Beta law of its success rate, which forgets as the policy moves on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class BetaTracker:
    """``alpha <- rho * alpha + r``, ``beta <- rho * beta + 1 - r`` for each prompt (2509.13232), and their mean.

    The mean ``alpha / (alpha + beta)`` moves by ``(r - mean) / (rho * (alpha + beta) + 1)`` per score, so it is an
    average of the scores with weights that fall by rho from visit to visit, for scores that are no 0 or 1 as well. It
    sees the global batch, so it is the same on every rank, and the order of rows does not matter.

    Args:
        rho: what a visit leaves of what was known before, in (0, 1].
        prior: alpha and beta of a prompt that was never seen.
    """

    def __init__(self, rho: float, prior: float) -> None:
        self.rho, self.prior = rho, prior
        self.counts: dict[int, tuple[float, float]] = {}

    def means(self, prompt_keys: Tensor) -> Tensor:
        """The mean of each row's prompt before its scores are added, [n] float64."""
        pairs = [self.counts.get(key, (self.prior, self.prior)) for key in prompt_keys.tolist()]
        values = [alpha / (alpha + beta) for alpha, beta in pairs]
        return torch.tensor(values, dtype=torch.float64, device=prompt_keys.device)

    def weights(self, prompt_keys: Tensor) -> Tensor:
        """``alpha + beta`` of each row's prompt, [n] float64: how many scores its mean stands for."""
        pairs = [self.counts.get(key, (self.prior, self.prior)) for key in prompt_keys.tolist()]
        return torch.tensor([sum(pair) for pair in pairs], dtype=torch.float64, device=prompt_keys.device)

    def add(self, prompt_keys: Tensor, scores: Tensor) -> None:
        """Take in the scores of a global batch; several of one prompt are one visit (our choice; the paper has one)."""
        visits: dict[int, list[float]] = {}
        for key, score in zip(prompt_keys.tolist(), scores.double().tolist(), strict=True):
            visits.setdefault(key, []).append(score)
        for key, found in visits.items():
            alpha, beta = self.counts.get(key, (self.prior, self.prior))
            total = math.fsum(found)  # exact, so that neither ranks nor order are seen in the last bit
            self.counts[key] = (self.rho * alpha + total, self.rho * beta + len(found) - total)

    def state_dict(self) -> dict[str, Any]:
        """Everything it knows, as tensors of numbers."""
        keys = sorted(self.counts)
        return {
            "keys": torch.tensor(keys, dtype=torch.int64),
            "counts": torch.tensor([self.counts[key] for key in keys], dtype=torch.float64).reshape(-1, 2),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        pairs = zip(state["keys"].tolist(), state["counts"].tolist(), strict=True)
        self.counts = {key: (alpha, beta) for key, (alpha, beta) in pairs}
