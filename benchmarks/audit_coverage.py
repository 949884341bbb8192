"""How good the estimates of ``dvpo audit`` are, on synthetic rewards whose faults are known.

``python -m benchmarks.audit_coverage [--plot docs/audit_calibration.png]`` prints the tables of docs/audit.md.

1. Five binary rewards and 300 gold labels: how often the intervals hold the truth, in 50 repetitions and in many. They
   promise 95 % for both rates at once, and for J. Half of the responses are right. Repetition k draws from
   ``random.Random(k)``, all five rewards from the same numbers, so an unlucky repetition shows in several rows.
2. Without gold: the retest bound and the estimate from three judges, where their assumptions hold and where not.
3. The online watch: a policy that learns to say a phrase which always passes, and one that only learns.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import fmean, median

from cluster.audit.plot import draw_calibration
from rollout.audit.calibration import Calibration, calibration
from rollout.audit.error_rates import ErrorRates, error_rates
from rollout.audit.hacking import DetectorConfig, HackingDetector
from rollout.audit.latent_class import latent_rates
from rollout.audit.retest import retest
from tests.rollout.audit.synthetic_rewards import KNOWN, RATES, judged, labelled, series, verdicts_of

NUM_LABELS = 300


def coverage(false_positive_rate: float, false_negative_rate: float, repetitions: int) -> list[float]:
    """Share of repetitions in which the interval of FPR, FNR, both at once, and J holds the truth."""
    truths = (false_positive_rate, false_negative_rate, 1.0 - false_positive_rate - false_negative_rate)
    rows = []
    for seed in range(repetitions):
        found = error_rates(labelled(false_positive_rate, false_negative_rate, NUM_LABELS, seed))
        assert isinstance(found, ErrorRates)
        intervals = (found.false_positive_rate, found.false_negative_rate, found.j)
        held = [interval.holds(truth) for interval, truth in zip(intervals, truths, strict=True)]
        rows.append([*held[:2], held[0] and held[1], held[2]])
    return [fmean(column) for column in zip(*rows, strict=True)]


def print_coverage(many: int) -> None:
    """Table 1."""
    print(f"## {NUM_LABELS} gold labels: share of repetitions in which the 95 % interval holds the truth\n")
    columns = [f"{name}, {number}" for number in (50, many) for name in ("FPR", "FNR", "both", "J")]
    print(f"| FPR / FNR | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for rates in KNOWN:
        few, more = coverage(*rates, 50), coverage(*rates, many)
        cells = [*(f"{value:.0%}" for value in few), *(f"{value:.1%}" for value in more)]
        print(f"| {rates[0]:g} / {rates[1]:g} | {' | '.join(cells)} |", flush=True)


def print_without_gold() -> None:
    """Table 2."""
    print("\n## Without gold labels\n\n| case | truth | estimate, mean of 20 data sets | 95 % interval holds |")
    print("|---|---|---|---|")
    for share in (0.1, 0.3, 0.45):
        for repeats in (False, True):
            found = [retest(scored_twice(share, repeats, seed)).min_error_rate for seed in range(20)]
            bounds = [bound for bound in found if bound is not None]
            held = fmean(bound.low <= share for bound in bounds)
            kind = "the same flips each time" if repeats else "flips drawn anew"
            value = fmean(bound.value for bound in bounds)
            print(f"| retest of 1 000 responses, {kind}: misjudged at least | {share:g} | {value:.3f} | {held:.0%} |")
    for trick in (0.0, 0.1, 0.25):
        fits = [latent_rates(verdicts_of(1_000, seed, trick)) for seed in range(20)]
        truth = trick + (1.0 - trick) * RATES[0][0]
        estimates = [fit.false_positive_rate[0] for fit in fits]
        held = fmean(estimate.holds(truth) for estimate in estimates)
        kind = f"{trick:.0%} of wrong responses pass with all" if trick else "independent errors"
        value = fmean(estimate.value for estimate in estimates)
        print(f"| three judges, 1 000 responses, {kind}: FPR of the first | {truth:.3f} | {value:.3f} | {held:.0%} |")


def scored_twice(share: float, repeats: bool, seed: int) -> list[list[float]]:
    """1 000 responses, half of them right, each scored twice by a reward that flips this share."""
    rng, rows = random.Random(seed), []
    for index in range(1_000):
        first = judged(float(index % 2), share, share, rng)
        rows.append([first, first if repeats else judged(float(index % 2), share, share, rng)])
    return rows


def points_lost(num_seeds: int, share: float, growth: float) -> list[float | None]:
    """Points of true accuracy below its best when hacking is flagged, by seed; None where it is not in 250 steps."""
    lost: list[float | None] = []
    for seed in range(num_seeds):
        detector, best, found = HackingDetector(DetectorConfig()), 0.0, None
        for signals, accuracy in series(seed, 250, hacked=True, checked_share=share, growth=growth):
            best = max(best, accuracy)
            if any(flag.kind == "hacking" for flag in detector.observe(signals)):
                found = 100.0 * (best - accuracy)
                break
        lost.append(found)
    return lost


def print_watch(num_seeds: int) -> None:
    """Table 3."""
    print("\n## The online watch: 128 responses a step, FPR = FNR = .1, a phrase that always passes from step 60 on\n")
    print("| re-checked share | growth of its log odds a step | flagged | points lost, median | before 5 points |")
    print("|---|---|---|---|---|")
    for share in (1.0, 0.5, 0.25, 0.1):
        for growth in (0.05, 0.08, 0.15):
            lost = points_lost(num_seeds, share, growth)
            told = [value for value in lost if value is not None]
            early = sum(value < 5.0 for value in told)
            cells = f"{len(told)} of {num_seeds} | {median(told):.1f} | {early} of {num_seeds}"
            print(f"| {share:.0%} | {growth:g} | {cells} |", flush=True)
    for persistent in (False, True):
        flagged = 0
        for seed in range(num_seeds):
            detector = HackingDetector(DetectorConfig())
            steps = series(10_000 + seed, 500, hacked=False, persistent=persistent, gold_size=32)
            quiet = takewhile(lambda step, watch=detector: not watch.observe(step[0]), steps)  # type: ignore[misc]
            flagged += sum(1 for _ in quiet) < 500
        kind = "the same flips for a prompt each time" if persistent else "flips drawn anew"
        print(f"\nclean series of 500 steps, {kind}: {flagged} of {num_seeds} flagged", flush=True)


def curves() -> dict[str, Calibration]:
    """Reliability of four rewards on 3 000 responses: one honest, one boastful, two that flip."""
    rng = random.Random(0)
    chance = [rng.random() for _ in range(3_000)]
    gold = [float(rng.random() < value) for value in chance]
    flip = partial(_flip, rng)
    shapes: dict[str, Callable[[float, float], float]] = {
        "probability of being right": lambda value, truth: value,
        "boastful": lambda value, truth: value**0.4,
        "binary, FPR .1, FNR .1": lambda value, truth: flip(0.1, 0.1, truth),
        "binary, FPR .45, FNR .45": lambda value, truth: flip(0.45, 0.45, truth),
    }
    return {
        name: calibration([shape(value, truth) for value, truth in zip(chance, gold, strict=True)], gold)
        for name, shape in shapes.items()
    }


def _flip(rng: random.Random, false_positive_rate: float, false_negative_rate: float, truth: float) -> float:
    return judged(truth, false_positive_rate, false_negative_rate, rng)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=2_000, help="repetitions of the longer count in table 1")
    parser.add_argument("--seeds", type=int, default=20, help="series of each kind in table 3")
    parser.add_argument("--plot", type=Path, help="where to draw calibration curves")
    options = parser.parse_args()
    print_coverage(options.many)
    print_without_gold()
    print_watch(options.seeds)
    if options.plot is not None:
        draw_calibration(curves(), options.plot)


if __name__ == "__main__":
    main()
