"""A small network that tells right responses from wrong ones by what the frozen starting model says of their tokens.

Few inputs average noise fast, and the frozen model cannot be moved by the policy that is judged with it. The entropy
and the log-probability of each token are VRPO's signals (2508.03058), here as inputs of a value model. How likely the
policy itself found what it said is none of them on purpose: it tells more, and what is wrong of it is what the policy
believes already, so that errors last (docs/evidence.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_LAST_TOKENS = 8
NUM_BRIEF = 10
"""Signals of the whole response, the first columns of :func:`signals_of`."""
NUM_SIGNALS = NUM_BRIEF + 2 * (NUM_LAST_TOKENS - 1)
"""All columns of it; the others are of single tokens."""
NUM_VOTES = 2
MEAN_REF_LOGPROB = 1
"""Its column of the mean log-probability under the starting model."""
HIDDEN = 64
BATCH = 256
_MIN_SCALE = 1e-3


def signals_of(logprobs: Tensor, entropies: Tensor, mask: Tensor, truncated: Tensor) -> Tensor:
    """What the network sees of each response itself.

    Args:
        logprobs, entropies: [batch seq] of the frozen starting model, in nats, 0 outside ``mask``.
        mask: [batch seq] bool, sampled tokens.
        truncated: [batch] bool.

    Returns:
        [batch :data:`NUM_SIGNALS`] float32: of both signals of the starting model the last
        token's, mean, standard deviation and extreme; the length in log tokens, and whether it was cut. Then both
        signals at the tokens before the last one, in reverse order.
    """
    lengths = mask.sum(dim=1)
    # Sampled tokens to the right, in order: column -1 is the last one.
    order = mask.to(torch.int8).argsort(dim=1, stable=True)
    position = torch.arange(mask.shape[1], device=mask.device)
    valid = (position >= mask.shape[1] - lengths[:, None]).float()
    brief: list[Tensor] = []
    detailed: list[Tensor] = []
    for values, extreme in ((logprobs, torch.amin), (entropies, torch.amax)):
        sampled = values.float().clamp(-30.0, 30.0).gather(1, order) * valid
        last = functional.pad(sampled, (NUM_LAST_TOKENS, 0))[:, -NUM_LAST_TOKENS:].flip(1)
        mean = sampled.sum(dim=1) / lengths.clamp(min=1)
        spread = ((sampled - mean[:, None]).square() * valid).sum(dim=1) / lengths.clamp(min=1)
        brief += [last[:, 0], mean, spread.sqrt(), extreme(sampled, dim=1)]
        detailed.append(last[:, 1:])
    brief += [lengths.float().log1p(), truncated.float()]
    return torch.cat([torch.stack(brief, dim=1), *detailed], dim=1)


def votes_of(num_same: Tensor, num_others: Tensor) -> Tensor:
    """What the network sees of the other responses to the same prompt.

    Args:
        num_same: [n] how many of them gave the same answer.
        num_others: [n] how many there are; 0 says nothing.

    Returns:
        [n 2] float32: the share of the same answer, drawn to one half where there are few, less one half; and how
        many there are, as log(1 + n). Agreement is no truth: what it is worth, scores and gold labels tell.
    """
    share = (num_same + 0.5) / (num_others + 1.0) - 0.5
    return torch.stack([share, num_others.log1p()], dim=1).float()


class OutcomeModel:
    """Networks for each of ``folds`` parts of the prompts, trained on all others: one for each view of a response.

    A view is the first so many inputs. What few inputs tell is learned from few labels and much noise; what more of
    them tell can be more or nothing but noise, and the one that uses the answers says how much each view is worth.

    What it says of a prompt's responses never comes of that prompt's own scores, so it may be combined with them
    without counting them twice (cross-fitting). Everything is computed on the CPU from the same rows in the same order,
    so it is the same on every rank.

    Args:
        folds: at least 2.
        views: inputs of each, ascending; the last is all of them.
        lr, weight_decay, dropout: of AdamW and the hidden layer.
        seed: of the starting weights and of the order of training.
    """

    def __init__(
        self, folds: int, views: tuple[int, ...], lr: float, weight_decay: float, dropout: float, seed: int
    ) -> None:
        self.folds, self.views, self.dropout, self.seed = folds, views, dropout, seed
        num_inputs, number = views[-1], len(views) * folds
        generator = torch.Generator().manual_seed(seed)

        def start(*shape: int) -> Tensor:
            # Uniform in +-1 / sqrt(inputs), as torch's own linear layers.
            values: Tensor = (torch.rand(shape, generator=generator) * 2 - 1) * shape[1] ** -0.5
            return values

        # What a view does not have has weight 0, where it stays: its inputs are 0 below.
        weights_in = [functional.pad(start(folds, view, HIDDEN), (0, 0, 0, num_inputs - view)) for view in views]
        self.parameters = {
            "weight_in": nn.Parameter(torch.cat(weights_in)),
            "bias_in": nn.Parameter(torch.zeros(number, 1, HIDDEN)),
            "weight_out": nn.Parameter(start(number, HIDDEN, 1)),
            "bias_out": nn.Parameter(torch.zeros(number, 1, 1)),
        }
        of_view = torch.arange(num_inputs) < torch.tensor(views)[:, None]
        self._seen = of_view.repeat_interleave(folds, dim=0)[:, None].float()
        self.optimiser = torch.optim.AdamW(self.parameters.values(), lr=lr, weight_decay=weight_decay)
        self.mean, self.scale = torch.zeros(num_inputs), torch.ones(num_inputs)
        self.is_trained = False

    def fold_of(self, prompt_keys: Tensor) -> Tensor:
        """[n] int64: the part that each prompt belongs to."""
        return prompt_keys % self.folds

    @torch.no_grad()
    def logits(self, inputs: Tensor, prompt_keys: Tensor) -> Tensor:
        """[n views] float32: log-odds of being right, by networks that have not seen the prompt; 0 untrained."""
        if not self.is_trained:
            return torch.zeros(len(inputs), len(self.views))
        everyone = self._forward((inputs - self.mean) / self.scale).unflatten(0, (len(self.views), self.folds))
        mine = self.fold_of(prompt_keys).expand(len(self.views), 1, -1)
        logits: Tensor = everyone.gather(1, mine)[:, 0].T
        return logits

    @torch.enable_grad()
    def train(
        self, inputs: Tensor, prompt_keys: Tensor, evidence: Tensor, weights: Tensor, num_batches: int, update: int
    ) -> None:
        """Maximise ``log(m + (1 - m) exp(-evidence))``, the likelihood of the scores whatever the truth is.

        Args:
            inputs: [n inputs].
            prompt_keys: [n] int64.
            evidence: [n] float32, log of P(scores | right) / P(scores | wrong) of the response's cell.
            weights: [n] float32, 1 / responses of the same cell.
            num_batches: optimiser steps; as many while there are few rows, which are all there is to learn from.
            update: names the order of the rows.
        """
        self.scale, self.mean = torch.std_mean(inputs, dim=0)
        self.scale = self.scale.nan_to_num(1.0).clamp(min=_MIN_SCALE)
        rows = (inputs - self.mean) / self.scale
        others = self.fold_of(prompt_keys)[None] != torch.arange(self.folds).repeat(len(self.views))[:, None]
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * (update + 1))
        batches: list[Tensor] = []
        for _ in range(num_batches):
            batches = batches or list(torch.randperm(len(rows), generator=generator).split(BATCH))
            chosen = batches.pop()
            kept = torch.rand(len(others), len(chosen), HIDDEN, generator=generator) >= self.dropout
            logits = self._forward(rows[chosen], kept / (1.0 - self.dropout))
            loss = _negative_log_likelihood(logits, evidence[chosen])
            share = others[:, chosen] * weights[chosen]
            self.optimiser.zero_grad()
            ((loss * share).sum(dim=1) / share.sum(dim=1).clamp(min=1e-6)).sum().backward()
            self.optimiser.step()
        self.is_trained = True

    def _forward(self, rows: Tensor, kept: Tensor | None = None) -> Tensor:
        """[n inputs] -> [view * fold n] logits."""
        p = self.parameters
        hidden = functional.gelu(torch.baddbmm(p["bias_in"], rows * self._seen, p["weight_in"]))
        if kept is not None:
            hidden = hidden * kept
        return torch.baddbmm(p["bias_out"], hidden, p["weight_out"])[..., 0]

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser and scales, for the checkpoint."""
        return {
            "parameters": {name: value.detach().clone() for name, value in self.parameters.items()},
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            "scale": self.scale,
            "is_trained": self.is_trained,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(state["parameters"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean, self.scale, self.is_trained = state["mean"], state["scale"], state["is_trained"]


def _negative_log_likelihood(logits: Tensor, evidence: Tensor) -> Tensor:
    """``-log(m exp(t) + (1 - m)) + max(t, 0)`` with m = sigmoid(logits): never negative, finite for any t."""
    right = functional.logsigmoid(logits) + evidence
    return evidence.clamp(min=0.0) - torch.logaddexp(right, functional.logsigmoid(-logits))
