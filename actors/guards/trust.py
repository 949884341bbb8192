"""How far the reward can be trusted, step by step: estimates from re-checked trajectories, and the watch over them.

True scores stay here. What leaves is metrics, findings, and two error rates for corrections that ask for them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from actors.groups import Group
from actors.guards.guards import GuardFinding
from actors.guards.trust_config import TrustAction, TrustConfig
from rollout.audit.error_rates import error_rates
from rollout.audit.hacking import Flag, HackingDetector, StepSignals
from rollout.audit.intervals import Estimate
from rollout.audit.pairs import GoldPair
from rollout.audit.ranking import pairwise_accuracy, spearman
from rollout.scoring.recheck import is_rechecked

LENGTH = "length_tokens"
PROXIES = {"entropy": "policy/entropy", "length": "rollout/response_tokens_mean"}
"""Metrics that say something of quality without gold, by the name that flags use."""


class RewardTrust:
    """Looks at each batch that was trained on. Without any true score it does nothing.

    Args:
        config: see :class:`TrustConfig`.
        share: of trajectories whose true score may be looked at, see ``reward.gold_share``. Estimates use no others,
            even where the true score of all is known because noise was injected.
        run_seed: names the streams that choose them.
        state: what :meth:`state` gave, to go on exactly from there; None for a new run.
    """

    def __init__(
        self, config: TrustConfig, share: float, run_seed: int, state: Mapping[str, Any] | None = None
    ) -> None:
        self._config, self._share, self._run_seed = config, share, run_seed
        kept = state or {}
        pairs = [
            GoldPair(prompt_id=name, observed=seen, gold=gold, features={LENGTH: size})
            for name, seen, gold, size in kept.get("pairs", ())
        ]
        self._pairs: deque[GoldPair] = deque(pairs, maxlen=config.window)
        self._detector = HackingDetector(config.detector, kept.get("detector"))
        self._num_flags = int(kept.get("num_flags", 0))

    def state(self) -> dict[str, Any]:
        """Everything remembered, as JSON."""
        return {
            "pairs": [[pair.prompt_id, pair.observed, pair.gold, pair.features[LENGTH]] for pair in self._pairs],
            "detector": self._detector.state(),
            "num_flags": self._num_flags,
        }

    @property
    def rates(self) -> tuple[float, float] | None:
        """Estimated false positive and false negative rate of a reward in {0, 1}; None while too little is known.

        The mean of the posterior under Jeffreys' prior, so neither is ever exactly 0 or 1.
        """
        by_gold = {gold: [pair.observed for pair in self._pairs if pair.gold == gold] for gold in (0.0, 1.0)}
        if min(map(len, by_gold.values())) < self._config.min_labels or error_rates(list(self._pairs)) is None:
            return None
        positive, right = ((sum(seen) + 0.5) / (len(seen) + 1.0) for seen in (by_gold[0.0], by_gold[1.0]))
        return positive, 1.0 - right

    def observe(
        self, step: int, groups: Sequence[Group], metrics: Mapping[str, float], held_out: tuple[float, int] | None
    ) -> list[GuardFinding]:
        """Take a batch that was trained on; returns what is newly found.

        Args:
            step: number of the training step.
            groups: the batch.
            metrics: of the step.
            held_out: mean true score of the first held-out split and its size, if it was evaluated in this step.
        """
        new = [pair for group in groups for pair in self._rechecked(group)]
        self._pairs += new
        if not new and held_out is None:
            return []
        seen = [s.reward.observed for group in groups for s in group.samples if s.reward.observed is not None]
        proxies = {name: metrics[key] for name, key in PROXIES.items() if math.isfinite(metrics.get(key, math.nan))}
        signals = StepSignals(
            step=step, observed_mean=sum(seen) / len(seen), pairs=new, gold=_as_answers(held_out), proxies=proxies
        )
        flags = self._detector.observe(signals)
        self._num_flags += len(flags)
        return [finding for flag in flags for finding in self._finding(flag)]

    def metrics(self) -> dict[str, float]:
        """Estimates over the window, with the ends of their 95 % intervals; what cannot be estimated is left out."""
        pairs = list(self._pairs)
        if not pairs:
            return {}
        found = {"trust/num_rechecked": float(len(pairs)), "trust/num_flags": float(self._num_flags)}
        rates = error_rates(pairs)
        if rates is not None:
            found |= _ends("trust/false_positive_rate", rates.false_positive_rate)
            found |= _ends("trust/false_negative_rate", rates.false_negative_rate)
            found |= _ends("trust/j", rates.j)
        observed, gold = [pair.observed for pair in pairs], [pair.gold for pair in pairs]
        found |= _ends("trust/pairwise_accuracy", pairwise_accuracy(observed, gold))
        errors = [pair.observed - pair.gold for pair in pairs]
        found |= _ends("trust/error_length_correlation", spearman(errors, [pair.features[LENGTH] for pair in pairs]))
        return found

    def _rechecked(self, group: Group) -> list[GoldPair]:
        """The samples whose true score may be looked at, and is known."""
        pairs = []
        for sample in group.samples:
            record = sample.reward
            # An abstention, or a sample that gold was not asked about.
            if record.clean is None or record.observed is None:
                continue
            # Injected noise tells the true score of all; in production only these would be known.
            if is_rechecked(self._run_seed, record.prompt_id, record.sample_index, self._share):
                length = float(sample.summary.num_response_tokens)
                pairs.append(
                    GoldPair(
                        prompt_id=group.prompt.prompt_id,
                        observed=record.observed,
                        gold=record.clean,
                        features={LENGTH: length},
                    )
                )
        return pairs

    def _finding(self, flag: Flag) -> list[GuardFinding]:
        actions: dict[str, TrustAction] = {"hacking": self._config.on_hacking, "drift": self._config.on_drift}
        action = actions.get(flag.kind, "warn")  # proxies are a hint, never a reason to stop
        if action == "off":
            return []
        now, limit = flag.evidence.get("now", math.nan), flag.evidence.get("limit", math.nan)
        return [GuardFinding(flag.kind, action, f"step {flag.step}: {flag.text}", now, limit, dict(flag.evidence))]


def _as_answers(held_out: tuple[float, int] | None) -> tuple[int, int] | None:
    """A mean score of so many answers as (right, all); None where it cannot be a share of right answers."""
    if held_out is None or not 0.0 <= held_out[0] <= 1.0:
        return None
    return round(held_out[0] * held_out[1]), held_out[1]


def _ends(key: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
