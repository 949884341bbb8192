"""Which slots of a sample of the future are replaced by which quantiles, for ``returns.mixture_targets``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ReplacementDraws:
    """Random slots and random sources, drawn in whole blocks of steps from each row's generator.

    Args:
        generator: one for the batch, or one per row.
        batch: rows.
        num: quantiles M.
        expected: mean number of replaced slots, (1 - lam) * M; rounded stochastically if it is no integer.
        device: of the results.
    """

    block = 32

    def __init__(
        self,
        generator: torch.Generator | Sequence[torch.Generator],
        batch: int,
        num: int,
        expected: float,
        device: torch.device,
    ) -> None:
        if not isinstance(generator, torch.Generator) and len(generator) != batch:
            raise ValueError(f"{len(generator)} generators for {batch} rows; give one, or one per row")
        self.generator, self.batch, self.num, self.device = generator, batch, num, device
        nearest = round(expected)
        exact = abs(expected - nearest) < 1e-6  # (1 - lam) * M in floats, e.g. 0.05 * 200 = 10.000000000000009
        self.low = nearest if exact else int(expected)
        self.fraction = 0.0 if exact else expected - self.low
        self.most = self.low + (0 if exact else 1)

    def step(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slots, sources and whether each pair is used, [batch n] each, for the k-th action from the end (k >= 1)."""
        within = (k - 1) % self.block
        if within == 0:
            self._refill()
        used = torch.ones_like(self.slots[:, within], dtype=torch.bool)
        if self.fraction > 0.0:  # pairs are in random order, so leaving the last one out keeps the law
            used[:, -1] = self.coin[:, within] < self.fraction
        return self.slots[:, within], self.sources[:, within], used

    def _refill(self) -> None:
        if self.most == 0:
            self.slots = self.sources = torch.zeros(self.batch, self.block, 0, dtype=torch.long, device=self.device)
            return
        shape = (self.block, 2 * self.num + 1)
        if isinstance(self.generator, torch.Generator):
            g = self.generator
            uniform = torch.rand((self.batch, *shape), generator=g, device=g.device)
        else:
            uniform = torch.stack([torch.rand(shape, generator=g, device=g.device) for g in self.generator])
        uniform = uniform.to(self.device)
        self.slots = uniform[..., : self.num].topk(self.most, dim=-1).indices
        self.sources = uniform[..., self.num : 2 * self.num].topk(self.most, dim=-1).indices
        self.coin = uniform[..., -1]
