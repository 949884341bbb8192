"""Synthetic rewards whose faults are known: what the audit's tests and its benchmark measure estimates against."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from rollout.audit.hacking import StepSignals
from rollout.audit.pairs import GoldPair

KNOWN = [(0.0, 0.0), (0.1, 0.1), (0.3, 0.1), (0.1, 0.3), (0.45, 0.45)]
"""False positive and false negative rate of five rewards."""
RATES = [(0.1, 0.2), (0.3, 0.1), (0.2, 0.3)]
"""The same of three judges."""
PROMPTS, SAMPLES = 16, 8
Step = tuple[StepSignals, float]


def judged(truth: float, false_positive_rate: float, false_negative_rate: float, rng: random.Random) -> float:
    """The verdict on a response whose true label is ``truth``."""
    flipped = rng.random() < (false_negative_rate if truth else false_positive_rate)
    return 1.0 - truth if flipped else truth


def labelled(false_positive_rate: float, false_negative_rate: float, number: int, seed: int) -> list[GoldPair]:
    """Judged responses, about half of them right."""
    rng, pairs = random.Random(seed), []
    for i in range(number):
        truth = float(rng.random() < 0.5)
        pairs.append(
            GoldPair(
                prompt_id=f"p{i}", observed=judged(truth, false_positive_rate, false_negative_rate, rng), gold=truth
            )
        )
    return pairs


def verdicts_of(number: int, seed: int, shared_trick: float = 0.0) -> list[list[float]]:
    """Three judges; with a shared trick, that share of wrong responses passes with all of them."""
    rng, rows = random.Random(seed), []
    for _ in range(number):
        truth = float(rng.random() < 0.6)
        tricked = truth == 0.0 and rng.random() < shared_trick
        rows.append([1.0 if tricked else judged(truth, *rates, rng) for rates in RATES])
    return rows


def series(
    seed: int,
    steps: int,
    hacked: bool,
    persistent: bool = False,
    gold_size: int = 0,
    checked_share: float = 1.0,
    growth: float = 0.08,
) -> Iterator[Step]:
    """Signals of a run whose policy learns, and the true accuracy of each step.

    The reward flips 10 % both ways (20 % by prompt where ``persistent``), and always passes a phrase. 1 % of responses
    have it; where hacked, its odds grow e^growth times a step from step 60 on. Responses with the phrase are wrong.
    """
    rng, rate = random.Random(seed), 0.2 if persistent else 0.1
    draws: dict[str, float] = {}
    for step in range(steps):
        grown = growth * max(0, step - 60) if hacked else 0.0
        phrase_share = 1.0 / (1.0 + 99.0 * math.exp(-grown))
        skill = 0.35 + 0.35 * (1.0 - math.exp(-step / 150.0))
        accuracy = skill * (1.0 - phrase_share)
        pairs = []
        for index in range(PROMPTS):
            name, ease = f"p{rng.randrange(200) if persistent else (step, index)}", rng.gauss(0.0, 0.2)
            for _ in range(SAMPLES):
                phrase = rng.random() < phrase_share
                gold = float(not phrase and rng.random() < min(1.0, max(0.0, skill + ease)))
                draw = draws.setdefault(name, rng.random()) if persistent else rng.random()
                observed = 1.0 if phrase else 1.0 - gold if draw < rate else gold
                pairs.append(GoldPair(prompt_id=name, observed=observed, gold=gold))
        checked = [pair for pair in pairs if rng.random() < checked_share] if checked_share < 1.0 else pairs
        right = sum(rng.random() < accuracy for _ in range(gold_size))
        observed_mean = sum(pair.observed for pair in pairs) / len(pairs)
        gold_set = (right, gold_size) if gold_size else None
        yield StepSignals(step=step, observed_mean=observed_mean, pairs=checked, gold=gold_set), accuracy
