"""How well ``dvpo audit RUN`` finds error rates without a true score, on the answers of a real run.

The run must have recorded the true score of every sample: ``reward.gold_share: 1``, injected noise or ``reward.gold``.
Its answers and how often each came again are kept; scores are drawn anew at known rates, 50 times for each pair, and
the true scores are hidden. A repetition is identified where the audit gives rates and not a reason.

    python -m benchmarks.recorded_rates RUN [--repetitions 50]

Exit status 1 if, of the identified repetitions at any pair of rates, fewer than nine tenths are within .03 of both
rates, or fewer than nine tenths of the intervals hold their rate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.ledger.report import LEDGER_NAME
from actors.ledger.scored_cells import read_scores
from cluster.audit.recorded import counts_of
from rollout.audit.cells.counts import CellCounts
from rollout.audit.cells.measured import MeasuredRates
from rollout.audit.cells.rates import REPEATS, measure_rates

RATES = ((0.0, 0.0), (0.1, 0.1), (0.3, 0.1), (0.1, 0.3), (0.3, 0.3), (0.4, 0.4))
TOLERANCE, SHARE = 0.03, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of the repetitions at one pair of rates.

    Attributes:
        identified: repetitions with rates.
        close: of these, both within :data:`TOLERANCE`.
        covered: of their intervals, two each, that hold the rate.
        width: mean width of an interval.
    """

    rates: tuple[float, float]
    identified: int
    close: int
    covered: int
    width: float

    @property
    def is_good(self) -> bool:
        """Whether enough are close and covered."""
        return self.close >= SHARE * self.identified and self.covered >= SHARE * 2 * self.identified


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repetitions", type=int, default=50)
    options = parser.parse_args(arguments)
    truth = counts_of(read_scores(options.run / LEDGER_NAME).cells)
    assert truth.has_gold().all(), "a true score is missing: the run needs reward.gold_share: 1"
    repeated = int(np.sum(truth.calls >= REPEATS))
    print(
        f"{int(truth.calls.sum())} scores of {len(truth)} answers, {repeated} of them scored {REPEATS} times or more\n"
    )
    print(
        f"| FPR / FNR | identified of {options.repetitions} | both within {TOLERANCE} | intervals that hold | width |"
    )
    print("|---|---|---|---|---|")
    rows = [measure_often(truth, rates, options.repetitions) for rates in RATES]
    for row in rows:
        shares = [f"{number / max(whole, 1):.0%}" for number, whole in
                  ((row.close, row.identified), (row.covered, 2 * row.identified))]  # fmt: skip
        print(f"| {row.rates[0]} / {row.rates[1]} | {row.identified} | {shares[0]} | {shares[1]} | {row.width:.3f} |")
    return 0 if all(row.is_good for row in rows) else 1


def measure_often(truth: CellCounts, rates: tuple[float, float], repetitions: int) -> Row:
    """Draw scores at ``rates`` and audit them, so many times."""
    found = [measure_rates(drawn(truth, rates, np.random.default_rng([seed, 11]))) for seed in range(repetitions)]
    pairs = [(one.rho_plus, one.rho_minus) for one in found if is_identified(one)]
    errors = [abs(e.value - rate) for pair in pairs for e, rate in zip(pair, rates, strict=True) if e is not None]
    holds = [e.holds(rate) for pair in pairs for e, rate in zip(pair, rates, strict=True) if e is not None]
    widths = [e.width for pair in pairs for e in pair if e is not None]
    close = sum(max(errors[i : i + 2]) < TOLERANCE for i in range(0, len(errors), 2))
    return Row(
        rates=rates,
        identified=len(pairs),
        close=close,
        covered=sum(holds),
        width=sum(widths) / len(widths) if widths else float("nan"),
    )


def is_identified(found: MeasuredRates) -> bool:
    """Whether there are rates."""
    return found.rho_plus is not None and found.rho_minus is not None


def drawn(truth: CellCounts, rates: tuple[float, float], rng: np.random.Generator) -> CellCounts:
    """The same answers, each scored as often, with errors at these rates; no true score."""
    plus, minus = rates
    ones = rng.binomial(truth.calls.astype(np.int64), np.where(truth.gold == 1.0, 1.0 - minus, plus))
    return CellCounts.of(truth.calls, ones, truth.prompts)


if __name__ == "__main__":
    sys.exit(main())
