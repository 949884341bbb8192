"""Trajectories for the page's browser: which ones, how surprising each is, and their form on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from cluster.report.ledger_facts import Cell
from cluster.report.page.curves import LEAST_J, number
from cluster.report.run_record import RunRecord
from cluster.report.samples import LoggedTrajectory, TokenRecord
from rollout.audit.cells.counts import CellCounts
from rollout.audit.cells.posterior import TransientRates, independent_posterior

MAX_BYTES = 330_000
"""Of all trajectories on a page as JSON."""
MAX_TEXT = 6_000
"""Characters of one text; what is left out is said on the page."""
DIGITS = 3


class Beliefs:
    """What the right score of a trajectory is believed to be, from the run's own records.

    A method with the correction ``evidence`` has said so itself. Else it follows from the scores of the trajectory's
    cell and the error rates that the run has estimated, taken as drawn anew at each score.
    """

    def __init__(self, run: RunRecord) -> None:
        corrections = run.settings.get("algorithm.reward_correction", [])
        names = [str(c.get("type")) if isinstance(c, dict) else str(c) for c in corrections]
        self._has_evidence = names[-1:] == ["evidence"]
        self._rates = self._estimated_rates(run)
        observed = [s.observed for s in run.trajectories if s.observed is not None]
        self._prior = 0.5
        if self._rates is not None and observed and all(value in (0.0, 1.0) for value in observed):
            fpr, fnr = self._rates
            self._prior = min(0.99, max(0.01, (fmean(observed) - fpr) / (1.0 - fpr - fnr)))
        elif observed:
            self._rates = None
        self._cells = run.ledger.cells if run.ledger is not None else {}

    @property
    def source(self) -> str:
        """Where beliefs come from, for people; empty if there are none."""
        if self._has_evidence:
            return "what the correction `evidence` handed on"
        if self._rates is not None and self._cells:
            return "scores of the same answer and the estimated error rates"
        return ""

    def of(self, sample: LoggedTrajectory) -> float | None:
        """The probability that a response is right; None where nothing is believed."""
        if self._has_evidence:
            return sample.corrected
        cell = self._cells.get(sample.trajectory_id)
        if cell is None or self._rates is None or not 0.0 <= cell.sum_scores <= cell.num_scores:
            return None
        return self._posterior(cell)

    def _posterior(self, cell: Cell) -> float:
        assert self._rates is not None
        gold = math.nan if cell.gold is None else float(cell.gold)
        counts = CellCounts.of([cell.num_scores], [cell.sum_scores], gold=[gold if gold in (0.0, 1.0) else math.nan])
        rates = TransientRates(rho_plus=self._rates[0], rho_minus=self._rates[1])
        return float(independent_posterior(counts, self._prior, rates)[0])

    def _estimated_rates(self, run: RunRecord) -> tuple[float, float] | None:
        for prefix in ("correction/evidence_", "trust/"):
            fpr, fnr = (run.metrics.last(f"{prefix}false_{kind}_rate") for kind in ("positive", "negative"))
            if 1.0 - fpr - fnr > LEAST_J:
                return min(0.999, max(0.001, fpr)), min(0.999, max(0.001, fnr))
        return None


def surprise(sample: LoggedTrajectory, posterior: float | None) -> float | None:
    """How far the observed score is from what is right: as believed, else as the clean score says."""
    expected = posterior if posterior is not None else sample.clean
    return None if expected is None or sample.observed is None else abs(sample.observed - expected)


def shown_samples(run: RunRecord, max_bytes: int) -> tuple[list[dict[str, Any]], str]:
    """Trajectories of a run for the page, and where beliefs about them come from.

    As many as fit: every second one is from among the most surprising, the others are spread over the steps.
    """
    beliefs = Beliefs(run)
    forms: dict[int, dict[str, Any]] = {}
    room = max_bytes
    for index in _order(run, beliefs):
        form = _form(run.trajectories[index], beliefs, run)
        size = len(json.dumps(form, ensure_ascii=False).encode("utf-8", "replace"))
        if size <= room:
            forms[index] = form
            room -= size
        if room < max_bytes // 100:
            break
    return [forms[index] for index in sorted(forms)], beliefs.source


def _order(run: RunRecord, beliefs: Beliefs) -> list[int]:
    """Numbers of trajectories, those first that a reader wants most."""
    samples = run.trajectories
    surprises = [surprise(sample, beliefs.of(sample)) for sample in samples]
    # Newest first among equals: what the policy does now.
    by_surprise = sorted(range(len(samples)), key=lambda i: (-(surprises[i] or 0.0), -i))
    # A permutation that spreads over the steps: every prefix of it is even.
    spread = sorted(range(len(samples)), key=lambda i: _reversed_bits(i))
    merged = [index for pair in zip(spread, by_surprise, strict=True) for index in pair]
    return list(dict.fromkeys(merged))


def _reversed_bits(value: int) -> int:
    return int(f"{value:032b}"[::-1], 2)


def _form(sample: LoggedTrajectory, beliefs: Beliefs, run: RunRecord) -> dict[str, Any]:
    posterior = beliefs.of(sample)
    cell = run.ledger.cells.get(sample.trajectory_id) if run.ledger is not None else None
    form = {
        "id": sample.trajectory_id,
        "step": sample.step,
        "prompt": [[str(m.get("role", "")), _cut(str(m.get("content", "")))] for m in sample.prompt],
        "turns": [[str(m.get("role", "")), _cut(str(m.get("content", "")))] for m in sample.turns],
        "response": _cut(sample.response),
        "reference": None if sample.reference is None else _cut(sample.reference),
        "observed": number(sample.observed, DIGITS),
        "clean": number(sample.clean, DIGITS),
        "parts": {name: number(value, DIGITS) for name, value in sample.parts.items()},
        "finish": sample.finish_reason,
        "versions": sample.versions,
        "corrected": number(sample.corrected, DIGITS),
        "posterior": number(posterior, DIGITS),
        "surprise": number(surprise(sample, posterior), DIGITS),
        "cell": None if cell is None else [cell.num_scores, number(cell.sum_scores, DIGITS), cell.gold],
        "length": _length(sample),
        "tokens": None if sample.tokens is None else _tokens(sample.tokens),
        "disagreement": None if sample.tokens is None else number(sample.tokens.disagreement, DIGITS),
    }
    return {key: value for key, value in form.items() if value not in (None, [], {})}


def _length(sample: LoggedTrajectory) -> int:
    """Sampled tokens where they are recorded, else characters."""
    tokens = sample.tokens
    return len(sample.response) if tokens is None else sum(tokens.sampled) + tokens.num_left_out


def _tokens(tokens: TokenRecord) -> dict[str, Any]:
    form: dict[str, Any] = {
        "texts": tokens.texts,
        "advantages": _numbers(tokens.advantages),
        "sampler": _numbers(tokens.sampler),
        "old": _numbers(tokens.old),
        "new": _numbers(tokens.new),
        "left": tokens.num_left_out,
    }
    if not all(tokens.sampled):
        form["sampled"] = [int(sampled) for sampled in tokens.sampled]
    if tokens.levels:
        form["levels"] = _numbers(tokens.levels)
        form["values"] = [None if v is None else [_numbers(head) for head in v] for v in tokens.values]
    return form


def _numbers(values: Sequence[float | None]) -> list[float | int | None]:
    return [number(value, DIGITS) for value in values]


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - MAX_TEXT} characters are left out here ...]\n{text[-half:]}"
