"""A variational information bottleneck between a critic's hidden state and its quantile heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learner.models.quantile_heads import QuantileHeads
from learner.models.spec import CriticConfig

MIN_LOGVAR, MAX_LOGVAR = -8.0, 4.0
INITIAL_LOGVAR = -4.0
"""Log-variance of the latent before training (our choice): little noise, so that the value can be learned at all."""

BOTTLENECK_KL = "bottleneck_kl"
"""Name of the output that holds the KL of each token, [n] or, aligned to tokens, [batch seq]."""
PERTURBED_KL = "perturbed_kl"
"""The same for the KL between the latents of a state and of the state with noise."""


def latent_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """``1/2 * sum_d (mu^2 + exp(logvar) - 1 - logvar)``, KL(N(mu, exp(logvar)) || N(0, I)), [... dim] -> [...].

    2508.03058 (the bottleneck is from the paper, the form is our reading). At least 0, and 0 only at mu = logvar = 0.
    """
    return 0.5 * (mean.square() + logvar.expm1() - logvar).sum(dim=-1)


def latent_gap(mean: Tensor, logvar: Tensor, other_mean: Tensor, other_logvar: Tensor) -> Tensor:
    """``KL(N(mu, s^2) || N(mu', s'^2))`` of diagonal normal laws, [... dim] -> [...]; s^2 is exp(logvar).

    ``1/2 sum_d (log s'^2 - log s^2 + (s^2 + (mu - mu')^2) / s'^2 - 1)``; 0 only where the laws are equal.
    """
    ratio = logvar - other_logvar
    shift = (mean - other_mean).square() * (-other_logvar).exp()
    return 0.5 * (ratio.expm1() - ratio + shift).sum(dim=-1)


class BottleneckHeads(nn.Module):
    """``mu, logvar = linear(h)``, logvar clamped to [-8, 4]; ``z = mu + exp(logvar / 2) * eps``; heads on an MLP of z.

    The MLP has two layers, of which the second is :class:`~learner.models.quantile_heads.QuantileHeads`; one head of
    one quantile is VRPO's value head (2508.03058; sizes, activation and initialisation are our choice). Without noise
    z = mu: rollouts, advantages and evaluation are deterministic. Everything is computed in float32.
    """

    def __init__(
        self, hidden_size: int, dim: int, config: CriticConfig, seed: int, perturbation: float | None = None
    ) -> None:
        super().__init__()
        self.config, self.hidden_size, self.dim = config, hidden_size, dim
        self.perturbation = perturbation
        self.mean, self.logvar = nn.Linear(hidden_size, dim), nn.Linear(hidden_size, dim)
        self.trunk = nn.Linear(dim, dim)
        self.quantiles = QuantileHeads(dim, config, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (self.mean, self.trunk):
                layer.weight.normal_(std=1.0 / math.sqrt(layer.in_features), generator=generator)
                layer.bias.zero_()
            self.logvar.weight.zero_()
            self.logvar.bias.fill_(INITIAL_LOGVAR)

    def noise(self, seeds: Tensor, action_mask: Tensor) -> Tensor:
        """eps ~ N(0, I) of each sampled token, [n dim], row-major.

        Each row draws from its own seed, so that its noise depends neither on rank nor on micro-batch nor on padding.

        Args:
            seeds: [batch] int64.
        """
        counts = zip(seeds.tolist(), action_mask.sum(dim=1).tolist(), strict=True)
        draws = [torch.randn(n, self.dim, generator=torch.Generator().manual_seed(seed)) for seed, n in counts]
        return torch.cat(draws).to(action_mask.device)

    def latent(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent of states [n hidden], [n dim] each."""
        return self.mean(hidden), self.logvar(hidden).clamp(MIN_LOGVAR, MAX_LOGVAR)

    def perturbed(self, hidden: Tensor, seeds: Tensor, action_mask: Tensor) -> Tensor:
        """States [n hidden] with noise in proportion to each one's own size, drawn like :meth:`noise`.

        ``h' = h + perturbation * rms(h) * eps``, eps ~ N(0, I). The size is detached, the state is not.
        """
        assert self.perturbation is not None
        counts = zip(seeds.tolist(), action_mask.sum(dim=1).tolist(), strict=True)
        width = hidden.shape[1]
        draws = [torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) for seed, n in counts]
        size = hidden.detach().square().mean(dim=-1, keepdim=True).sqrt()
        return hidden + self.perturbation * size * torch.cat(draws).to(hidden)

    def gap(self, hidden: Tensor, seeds: Tensor, action_mask: Tensor) -> Tensor:
        """KL between the latents of states [n hidden] and of the same with noise, [n]; in float32."""
        hidden = hidden.float()
        return latent_gap(*self.latent(hidden), *self.latent(self.perturbed(hidden, seeds, action_mask)))

    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Outputs of the heads, and :data:`BOTTLENECK_KL` [n].

        Args:
            hidden: [n hidden].
            noise: [n dim], or None for the mean.
        """
        mean, logvar = self.latent(hidden.float())
        latent = mean if noise is None else mean + (logvar / 2).exp() * noise
        outputs: dict[str, Tensor] = self.quantiles(nn.functional.silu(self.trunk(latent)))
        return {**outputs, BOTTLENECK_KL: latent_kl(mean, logvar)}
