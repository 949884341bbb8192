"""Simulated responses whose truth is known: noisy scores, informative inputs, a share of gold labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.algorithms.corrections.evidence.outcome_model import NUM_SIGNALS


@dataclass(frozen=True)
class Simulated:
    """One batch; [n] but for ``signals`` [n signals] and ``states`` [n 6].

    Scores, truths and gold are in {0, 1}, gold is NaN mostly.
    """

    signals: Tensor
    states: Tensor
    scores: Tensor
    gold: Tensor
    prompts: Tensor
    answers: Tensor
    seeds: Tensor
    truths: Tensor


def responses(
    number: int,
    step: int,
    rates: tuple[float, float],
    gold_share: float = 0.0,
    num_prompts: int = 0,
    signal: float = 1.0,
    group: int = 1,
    right: float = 0.25,
    content: float = 0.0,
) -> Simulated:
    """Four answers to each prompt, of which one is right; prompts recur if ``num_prompts`` is not 0.

    Args:
        group: responses to each prompt of a batch that does not recur.
        content: how far apart the end states of right and wrong responses are, of which the signals know nothing.
        right: share of responses that are right; the others spread over the three wrong answers.
    """
    g = torch.Generator().manual_seed(7_919 * step + 1)
    prompts = torch.arange(number) // group + step * number
    if num_prompts:
        prompts = torch.randint(num_prompts, (number,), generator=g)
    misses = torch.randint(1, 4, (number,), generator=g) * (torch.rand(number, generator=g) >= right)
    answers = (prompts + misses) % 4
    truths = (answers == prompts % 4).double()
    signals = torch.randn(number, NUM_SIGNALS, generator=g)
    signals[:, 0] += 2.0 * signal * truths.float()
    signals[:, 3] += signal * truths.float()
    wrong = torch.where(truths > 0.5, rates[1], rates[0])
    scores = torch.where(torch.rand(number, generator=g) < wrong, 1 - truths, truths)
    gold = torch.where(torch.rand(number, generator=g) < gold_share, truths, torch.nan)
    seeds = torch.arange(number) + step * number + (1 << 40)
    states = torch.randn(number, 6, generator=g)
    states[:, 1] += content * truths.float()
    return Simulated(signals, states, scores, gold, prompts + 1, answers + 1, seeds, truths)


def area_under_curve(values: Tensor, truths: Tensor) -> float:
    """Probability that a right response has the higher value than a wrong one."""
    right, wrong = values[truths > 0.5][:, None], values[truths < 0.5][None]
    return float(((right > wrong).double() + 0.5 * (right == wrong).double()).mean())
