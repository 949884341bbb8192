"""A categorical head: the value is the mean of a law over bins, which is learned as a classification."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learner.maths.losses.categorical import bin_centres
from learner.models.quantile_heads import INITIAL_WEIGHT_STD
from learner.models.spec import CriticConfig

BIN_LOGITS = "bin_logits"
"""Name of the output that holds each bin's logit, [n head bin] or, aligned to tokens, [batch seq head bin]."""


class CategoricalHeads(nn.Module):
    """N linear maps from a hidden state to logits of bins; ``V = sum_i softmax(logits)_i * z_i`` (2403.03950).

    Bins have their centres evenly from ``value_low`` to ``value_high``. Weights start normal with standard deviation
    1e-3, drawn anew for each bin and with another seed for each head, and biases at 0, so a value starts near the
    middle of its range (our choice). Float32 whatever the body computes in.
    """

    def __init__(self, hidden_size: int, config: CriticConfig, seed: int) -> None:
        super().__init__()
        self.config, self.hidden_size = config, hidden_size
        _, _, num_bins = config.bins
        draws = [
            torch.randn(num_bins, hidden_size, generator=torch.Generator().manual_seed(seed + head))
            for head in range(config.num_heads)
        ]
        self.weight = nn.Parameter(torch.stack(draws) * INITIAL_WEIGHT_STD)
        self.bias = nn.Parameter(torch.zeros(config.num_heads, num_bins))

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """Value and logits of each state.

        Args:
            hidden: [n dim].

        Returns:
            ``quantile_values`` [n head 1], the means; ``raw_crossing_frac`` [n], all 0; and :data:`BIN_LOGITS`
            [n head bin].
        """
        weight, bias = self.weight.float().flatten(0, 1), self.bias.float().flatten()
        logits = torch.addmm(bias, hidden.float(), weight.t()).unflatten(-1, self.bias.shape)
        low, high, num_bins = self.config.bins
        values = logits.softmax(dim=-1) @ bin_centres(low, high, num_bins, logits.device)
        return {
            "quantile_values": values.unsqueeze(-1),
            "raw_crossing_frac": logits.new_zeros(len(logits)),
            BIN_LOGITS: logits,
        }
