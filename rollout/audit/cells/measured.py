"""What is known of a reward's errors: estimates with intervals, and reasons where there is none."""

from __future__ import annotations

from dataclasses import dataclass

from rollout.audit.intervals import LEVEL, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """What counts as identified.

    Attributes:
        least_repeated: cells with three calls or more that it takes.
        max_width: widest interval of a transient rate that is still a number.
        max_width_with_gold: the same for persistent and total rates, which few labels know less exactly.
        level: of the intervals.
        num_resamples: of the bootstrap.
    """

    least_repeated: int = 30
    max_width: float = 0.07
    max_width_with_gold: float = 0.2
    level: float = LEVEL
    num_resamples: int = 300

    def __post_init__(self) -> None:
        """Raise ValueError for settings without meaning."""
        if not 0.0 < self.level < 1.0 or self.num_resamples < 20 or self.least_repeated < 1:
            raise ValueError("level must be in (0, 1), num_resamples at least 20 and least_repeated at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRates:
    """Error rates as far as the cells tell them; what they do not tell is None.

    Attributes:
        rho_plus, rho_minus: transient, see :class:`rollout.audit.cells.posterior.TransientRates`. Both or neither.
        pi_plus, pi_minus: persistent, see :class:`rollout.audit.cells.posterior.PersistentRates`. Both or neither, and
            only with gold.
        total_plus, total_minus: P(score 1 | wrong) and P(score 0 | right), of both kinds together; only with gold.
        share: of cells that are right, or of prompts with a right cell where cells exclude each other. Without gold, of
            those whose *verdict* is 1.
        anchored: gold says which verdict is right. If false, that scores are right more often than wrong is an
            assumption: nothing in them could tell.
        num_cells, num_repeated, num_gold: cells with a call, with three or more, and with a gold label.
        reasons: why what is None is not identified, one sentence each.
    """

    rho_plus: Estimate | None = None
    rho_minus: Estimate | None = None
    pi_plus: Estimate | None = None
    pi_minus: Estimate | None = None
    total_plus: Estimate | None = None
    total_minus: Estimate | None = None
    share: Estimate | None = None
    anchored: bool
    num_cells: int
    num_repeated: int
    num_gold: int
    reasons: tuple[str, ...] = ()


DEFAULT_MEASURE = MeasureSettings()
