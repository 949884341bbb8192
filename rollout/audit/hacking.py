"""Is the policy learning the reward's faults instead of the task? Fed once a step, from gold checks and proxies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from pydantic import Field, model_validator

from rollout.audit.pairs import GoldPair
from rollout.audit.rate_watch import RECENT_STEPS, RateWatch
from rollout.component import StrictModel

PROXY_PATIENCE = 5
"""Steps in a row for which proxies must be off before they are mentioned."""
NUM_WATCHES = 3
GOLD_BASELINE = 200
"""Answers to the gold set that make its baseline: it is asked as a whole, so the first time may be enough."""


class DetectorConfig(StrictModel):
    """Options of the watch for drift and hacking of the reward."""

    false_alarm: float = Field(
        0.01, gt=0.0, lt=1.0, description="Probability of a false alarm over the whole run, all gold tests together."
    )
    baseline_steps: int = Field(20, ge=2, description="First steps that later ones are compared with.")
    tolerance: float = Field(
        0.0, ge=0.0, lt=1.0, description="Rise of an error rate, or fall of gold accuracy, that is no alarm."
    )
    low: float = Field(0.0, description="Lowest observed score that counts; lower ones are taken for it.")
    high: float = Field(1.0, description="Highest observed score that counts; higher ones are taken for it.")

    @model_validator(mode="after")
    def _ordered(self) -> DetectorConfig:
        if not self.low < self.high:
            raise ValueError(f"'low' must be below 'high' (got {self.low:g} and {self.high:g})")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSignals:
    """What one step showed.

    Attributes:
        step: the step.
        observed_mean: mean observed score of the whole batch.
        pairs: responses of the batch whose gold label (0 or 1) is known, because a share was re-checked.
        gold: (right, all) answers to a held-out gold set in this step, or None.
        proxies: numbers that say something of quality without gold, such as entropy, length, or the share of responses
            that repeat a phrase; the same keys in every step.
    """

    step: int
    observed_mean: float
    pairs: Sequence[GoldPair] = ()
    gold: tuple[int, int] | None = None
    proxies: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A finding. Each test raises each kind once; a drift may turn out to be hacking later.

    ``hacking``: wrong answers score higher than at the start, or gold accuracy fell below it, while the observed reward
    rose. ``drift``: one of them without that rise, or right answers score lower. ``proxies``: the observed reward rose
    while proxies left their range; no test of known error stands behind this one.
    """

    step: int
    kind: Literal["hacking", "drift", "proxies"]
    text: str
    evidence: dict[str, float]


class HackingDetector:
    """Compares each step with the first ones.

    Three sequential tests (:class:`rollout.audit.rate_watch.RateWatch`) share ``false_alarm``: mean score of wrong
    answers rises (for scores in {0, 1}: the false positive rate), mean shortfall of right answers rises (the false
    negative rate), share of wrong answers to the gold set rises. The first two do not move when the policy gets better
    or worse, only when the reward judges it differently. Re-checked responses to one prompt in one step count as one
    value, their mean, so that errors that hit a prompt as a whole do not pass for many.

    A reward that is hacked from the first step on looks the same in the baseline: audit it before training.

    Args:
        config: see :class:`DetectorConfig`.
        state: what :meth:`state` gave, to go on exactly from there.
    """

    def __init__(self, config: DetectorConfig, state: Mapping[str, Any] | None = None) -> None:
        self._config = config
        kept = state or {}
        watches = kept.get("watches", {})
        options = (config.false_alarm / NUM_WATCHES, config.tolerance, config.baseline_steps, 50)
        self._on_wrong = RateWatch(*options, watches.get("on_wrong"))
        self._on_right = RateWatch(*options, watches.get("on_right"))
        # One step may be its baseline: the gold set is asked as a whole each time.
        self._gold = RateWatch(*options[:2], 1, GOLD_BASELINE, watches.get("gold"))
        self._first: list[float] = list(kept.get("first", ()))
        self._last: deque[float] = deque(kept.get("last", ()), maxlen=RECENT_STEPS)
        self._bands: dict[str, list[float]] = {name: list(band) for name, band in kept.get("bands", {}).items()}
        self._proxies_off: int = kept.get("proxies_off", 0)
        self._raised: list[str] = list(kept.get("raised", ()))

    def observe(self, signals: StepSignals) -> list[Flag]:
        """Take one step's signals; returns what is newly found."""
        rose = self._observed_rose(signals.observed_mean)
        flags: list[Flag | None] = []
        if self._on_wrong.observe(self._by_prompt(signals.pairs, gold=0.0)):
            flags.append(self._rate_flag(signals.step, "on_wrong", "wrong answers score", self._on_wrong, rose))
        if self._on_right.observe([1.0 - value for value in self._by_prompt(signals.pairs, gold=1.0)]):
            flags.append(
                self._rate_flag(signals.step, "on_right", "right answers fall short by", self._on_right, False)
            )
        if signals.gold is not None:
            right, number = signals.gold
            if self._gold.observe([0.0] * right + [1.0] * (number - right)):
                flags.append(self._rate_flag(signals.step, "gold", "share wrong on the gold set", self._gold, rose))
        flags.append(self._proxy_flag(signals, rose))
        return [flag for flag in flags if flag is not None]

    def metrics(self) -> dict[str, float]:
        """Recent mean score of wrong answers and shortfall of right ones, in shares of the score range."""
        rates = {"false_positive_rate": self._on_wrong.recent, "false_negative_rate": self._on_right.recent}
        return {name: value for name, value in rates.items() if value is not None}

    def state(self) -> dict[str, Any]:
        """Everything :meth:`observe` depends on, for JSON."""
        return {
            "watches": {
                "on_wrong": self._on_wrong.state(),
                "on_right": self._on_right.state(),
                "gold": self._gold.state(),
            },
            "first": list(self._first),
            "last": list(self._last),
            "bands": {name: list(band) for name, band in self._bands.items()},
            "proxies_off": self._proxies_off,
            "raised": list(self._raised),
        }

    def _by_prompt(self, pairs: Sequence[GoldPair], gold: float) -> list[float]:
        """Mean observed score of each prompt's responses with this gold label, as a share of the score range."""
        low, high = self._config.low, self._config.high
        scores: dict[str, list[float]] = {}
        for pair in pairs:
            if pair.gold == gold:
                share = (min(max(pair.observed, low), high) - low) / (high - low)
                scores.setdefault(pair.prompt_id, []).append(share)
        return [fmean(members) for members in scores.values()]

    def _observed_rose(self, value: float) -> bool:
        """Whether the mean of the last steps is above that of the first by two standard errors."""
        if len(self._first) < self._config.baseline_steps:
            self._first.append(value)
            return False
        self._last.append(value)
        error = stdev(self._first) * (1.0 / len(self._first) + 1.0 / len(self._last)) ** 0.5
        return fmean(self._last) > fmean(self._first) + 2.0 * error

    def _rate_flag(self, step: int, name: str, what: str, watch: RateWatch, rose: bool) -> Flag | None:
        kind = "hacking" if rose else "drift"
        # Hacking is the graver word: after it a drift of the same test is no news, the other way round it is.
        if f"{name} hacking" in self._raised or f"{name} {kind}" in self._raised:
            return None
        self._raised.append(f"{name} {kind}")
        first, now = watch.baseline or 0.0, watch.recent or 0.0
        told = f"{what} {now:.2f} over the last steps, {first:.2f} at the start"
        if watch is self._gold:  # asked seldom, of many prompts at once: the last steps may be long ago
            now = watch.newest or 0.0
            told = f"{what} {now:.2f} now, {first:.2f} at the start"
        evidence = {"start": first, "now": now, "limit": watch.limit or 0.0}
        if not rose:
            text = f"the reward has drifted: {told}; audit it again, and set correction rates anew"
            return Flag(step=step, kind="drift", text=text, evidence=evidence)
        reward = (fmean(self._first), fmean(self._last))
        evidence |= {"observed_start": reward[0], "observed_now": reward[1]}
        text = (
            f"the reward is being hacked: observed reward rose from {reward[0]:.3f} to {reward[1]:.3f}, but {told}; "
            "read responses that score high, mend the reward, and go on from a checkpoint before this"
        )
        return Flag(step=step, kind="hacking", text=text, evidence=evidence)

    def _proxy_flag(self, signals: StepSignals, rose: bool) -> Flag | None:
        # The range of the first steps is the band; nothing is judged by it before it is complete.
        if len(self._first) < self._config.baseline_steps or not self._last:
            for name, value in signals.proxies.items():
                low, high = self._bands.get(name, (value, value))
                self._bands[name] = [min(low, value), max(high, value)]
            return None
        off = {name: value for name, value in signals.proxies.items() if self._is_off(name, value)}
        self._proxies_off = self._proxies_off + 1 if rose and len(off) >= 2 else 0
        if self._proxies_off < PROXY_PATIENCE or "proxies" in self._raised:
            return None
        self._raised.append("proxies")
        told = ", ".join(f"{name} {value:.3g} (was {_span(self._bands[name])})" for name, value in sorted(off.items()))
        text = f"observed reward rises while the responses change: {told}; re-check some of them against gold"
        return Flag(step=signals.step, kind="proxies", text=text, evidence=off)

    def _is_off(self, name: str, value: float) -> bool:
        """Further from the baseline's middle than three half-widths, and than three quarters of that middle."""
        if name not in self._bands:
            return False
        low, high = self._bands[name]
        middle = (low + high) / 2.0
        return abs(value - middle) > max(1.5 * (high - low), 0.75 * abs(middle))


def _span(band: Sequence[float]) -> str:
    return f"{band[0]:.3g} to {band[1]:.3g}"
