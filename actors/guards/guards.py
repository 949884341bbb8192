"""Guards against numbers that go wrong: they look at each step's numbers and say what is to be done. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any, Literal

from actors.guards.base import Alarm, Guard
from actors.guards.config import GuardsConfig
from rollout.component import ComponentSpec, build

__all__ = ["GuardFinding", "Guards", "GuardsConfig"]

WINDOW = 64
"""Training steps that running medians are over."""
MIN_HISTORY = 5
"""Steps before a running median is compared with."""
_MOST = 1e300
"""Largest number kept in the history, so that it stays finite."""


@dataclass(frozen=True, slots=True)
class GuardFinding:
    """A number that went wrong.

    Attributes:
        guard: section of ``guards`` that found it; ``max_consecutive_skips`` for that option.
        action: what is to be done. A 'skip' found after the update has been done already, by the learner.
        text: what is wrong, with numbers.
        value: the number.
        limit: what it should have stayed within.
        details: more, as JSON.
    """

    guard: str
    action: Literal["warn", "skip", "rollback", "stop"]
    text: str
    value: float
    limit: float
    details: dict[str, Any] = field(default_factory=dict)


class Guards:
    """All guards of a run. A warning is given when a number goes wrong, and not again until it was right in between.

    Args:
        config: limits and actions.
        state: what :meth:`state` gave, or None for a new run.
    """

    def __init__(self, config: GuardsConfig, state: Mapping[str, Any] | None = None) -> None:
        self._config = config
        saved = state or {}
        self._rewards: list[tuple[float, float]] = [(centre, spread) for centre, spread in saved.get("rewards", [])]
        self._lengths: list[float] = list(saved.get("lengths", []))
        self._entropies: list[float] = list(saved.get("entropies", []))
        self._warned: set[str] = set(saved.get("warned", []))
        self._num_skips = int(saved.get("num_skips", 0))
        self._further = further_guards(config.further)
        for guard, kept in zip(self._further, saved.get("further", []), strict=False):  # none of an earlier version
            guard.load_state(kept)

    def state(self) -> dict[str, Any]:
        """Everything remembered, as JSON; guards made from it find the same."""
        return {
            "rewards": [list(pair) for pair in self._rewards],
            "lengths": list(self._lengths),
            "entropies": list(self._entropies),
            "warned": sorted(self._warned),
            "num_skips": self._num_skips,
            "further": [guard.state() for guard in self._further],
        }

    def before_update(self, rewards: Sequence[float], lengths: Sequence[int], step: int) -> list[GuardFinding]:
        """Look at the batch that is to be trained on.

        Args:
            rewards: observed reward of each trajectory.
            lengths: response tokens of each trajectory.
            step: number of the training step, from 1.
        """
        if not rewards:
            return []
        found = [*self._non_finite_rewards(rewards), *self._far_rewards(rewards), *self._short_responses(lengths)]
        found += self._alarms(guard.before_update(rewards, lengths) for guard in self._further)
        if any(finding.action == "skip" for finding in found):
            # Here, since a batch that is left out never reaches after_update.
            self._num_skips += 1
            found += self._too_many_skips()
        return [_at(step, finding) for finding in found]

    def after_update(self, metrics: Mapping[str, float], step: int, notes: Sequence[str] = ()) -> list[GuardFinding]:
        """Look at what the learner reports of an update; not to be called if there was none.

        Args:
            metrics: of rollouts and learner; a key that is absent or NaN was not observed.
            step: number of the training step, from 1.
            notes: what :attr:`learner.update.result.UpdateResult.notes` says.
        """
        seen = {key: value for key, value in metrics.items() if not math.isnan(value)}
        found = [
            *self._non_finite_steps(seen, notes),
            *self._mismatch(seen),
            *self._entropy(seen),
            *self._cut_responses(seen),
            *self._kl(seen),
            *self._alarms(guard.after_update(seen) for guard in self._further),
        ]
        self._num_skips = self._num_skips + 1 if seen.get("guard/num_skipped_steps", 0.0) > 0.0 else 0
        return [_at(step, finding) for finding in (*found, *self._too_many_skips())]

    # --- one method a number ------------------------------------------------------------------------------------------

    def _non_finite_rewards(self, rewards: Sequence[float]) -> list[GuardFinding]:
        num_bad = sum(not math.isfinite(reward) for reward in rewards)
        text = f"{num_bad} of {len(rewards)} observed rewards are not finite"
        return [GuardFinding("nonfinite", self._config.nonfinite.action, text, float(num_bad), 0.0)] if num_bad else []

    def _far_rewards(self, rewards: Sequence[float]) -> list[GuardFinding]:
        guard = self._config.reward
        finite = [reward for reward in rewards if math.isfinite(reward)]
        if not finite:
            return []
        largest, found = max(map(abs, finite)), []
        if guard.max_abs is not None:
            text = f"an observed reward is {largest:.4g} in size, above {guard.max_abs:g}"
            found += self._judge("reward.max_abs", guard.action, largest > guard.max_abs, text, largest, guard.max_abs)
        if len(self._rewards) >= MIN_HISTORY:
            centre = median(pair[0] for pair in self._rewards)
            # The spread alone may be 0, as with rewards that are all equal, and then everything would be far out.
            scale = max(median(pair[1] for pair in self._rewards), abs(centre), guard.min_scale)
            far = [abs(reward - centre) / scale for reward in finite]
            share = sum(distance > guard.max_scales for distance in far) / len(far)
            text = (
                f"{share:.1%} of the observed rewards are more than {guard.max_scales:g} scales of {scale:.4g} from "
                f"the running median {centre:.4g}, the furthest {max(far):.4g} scales"
            )
            details = {"far_frac": share, "centre": centre, "scale": scale}
            wrong = share > guard.max_far_frac
            found += self._judge("reward.max_scales", guard.action, wrong, text, max(far), guard.max_scales, details)
        # Whatever was found: a change of scale that lasts becomes the usual.
        middle = median(finite)
        spread = sum(min(_MOST, abs(reward - middle)) / len(finite) for reward in finite)
        self._rewards = [*self._rewards, (max(-_MOST, min(_MOST, middle)), spread)][-WINDOW:]
        return found

    def _short_responses(self, lengths: Sequence[int]) -> list[GuardFinding]:
        guard, length, found = self._config.length, fmean(lengths), list[GuardFinding]()
        if len(self._lengths) >= MIN_HISTORY:
            usual = median(self._lengths)
            limit = guard.min_frac * usual
            text = f"responses have {length:.4g} tokens on average, below {guard.min_frac:g} of the usual {usual:.4g}"
            found = self._judge("length.min_frac", guard.action, length < limit, text, length, limit)
        self._lengths = [*self._lengths, length][-WINDOW:]
        return found

    def _non_finite_steps(self, seen: Mapping[str, float], notes: Sequence[str]) -> list[GuardFinding]:
        number = seen.get("guard/num_nonfinite_steps", 0.0)
        if number == 0.0:
            return []
        # Not by _judge: what is not finite is told each time, not only the first.
        text = f"{number:.0f} optimiser steps were not taken because a number was not finite"
        text = "; ".join([text, *notes])
        return [GuardFinding("nonfinite", self._config.nonfinite.action, text, number, 0.0, {"notes": list(notes)})]

    def _mismatch(self, seen: Mapping[str, float]) -> list[GuardFinding]:
        guard, found = self._config.mismatch, list[GuardFinding]()
        for option, key, what, limit in (
            ("max_gap", "guard/sampler_gap", "with the current weights", guard.max_gap),
            ("max_stale_gap", "guard/sampler_gap_stale", "with older weights", guard.max_stale_gap),
        ):
            if limit is not None and key in seen:
                text = (
                    f"percentile {100 * guard.percentile:g} of the difference between the learner's and the sampler's "
                    f"log-probability of tokens sampled {what} is {seen[key]:.4g} nats, above {limit:g}"
                )
                found += self._judge(f"mismatch.{option}", guard.action, seen[key] > limit, text, seen[key], limit)
        return found

    def _entropy(self, seen: Mapping[str, float]) -> list[GuardFinding]:
        guard, entropy, found = self._config.entropy, seen.get("policy/entropy"), list[GuardFinding]()
        if entropy is None:
            return []
        if guard.min_entropy is not None:
            least = guard.min_entropy
            text = f"the policy's entropy is {entropy:.4g} nats a token, below {least:g}"
            found += self._judge("entropy.min_entropy", guard.action, entropy < least, text, entropy, least)
        if self._entropies:
            start = median(self._entropies)
            least = guard.min_frac * start
            text = (
                f"the policy's entropy is {entropy:.4g} nats a token, below {guard.min_frac:g} of {start:.4g} at first"
            )
            found += self._judge("entropy.min_frac", guard.action, entropy < least, text, entropy, least)
        # The first ones only: the comparison is with the start of the run, which a running median would forget.
        if len(self._entropies) < MIN_HISTORY:
            self._entropies.append(entropy)
        return found

    def _cut_responses(self, seen: Mapping[str, float]) -> list[GuardFinding]:
        guard, share = self._config.length, seen.get("rollout/truncated_frac", 0.0)
        text = f"{share:.1%} of the responses were cut at the length limit, above {guard.max_truncated_frac:.1%}"
        wrong = share > guard.max_truncated_frac
        return self._judge("length.max_truncated_frac", guard.action, wrong, text, share, guard.max_truncated_frac)

    def _kl(self, seen: Mapping[str, float]) -> list[GuardFinding]:
        guard, found = self._config.kl, list[GuardFinding]()
        for option, key, what, limit in (
            ("max_kl", "policy/approx_kl", "from before the update", guard.max_kl),
            ("max_ref_kl", "policy/ref_kl", "to the starting policy", guard.max_ref_kl),
        ):
            if limit is not None and key in seen:
                text = f"the policy's KL {what} is {seen[key]:.4g} nats a token, above {limit:g}"
                found += self._judge(f"kl.{option}", guard.action, seen[key] > limit, text, seen[key], limit)
        return found

    def _alarms(self, alarms: Iterable[Alarm | None]) -> list[GuardFinding]:
        """What the user's own guards say."""
        found = list[GuardFinding]()
        for index, (guard, alarm) in enumerate(zip(self._further, alarms, strict=True)):
            if alarm is not None:
                name, action = self._config.further[index].type, guard.config.action
                found += self._judge(name, action, True, alarm.text, alarm.value, alarm.limit)
        return found

    def _too_many_skips(self) -> list[GuardFinding]:
        number, limit = self._num_skips, self._config.max_consecutive_skips
        text = f"{number} training steps in a row skipped something; {limit} may"
        return (
            [GuardFinding("max_consecutive_skips", "stop", text, float(number), float(limit))] if number > limit else []
        )

    def _judge(
        self,
        option: str,
        action: Literal["off", "warn", "skip", "rollback", "stop"],
        wrong: bool,
        text: str,
        value: float,
        limit: float,
        details: Mapping[str, Any] | None = None,
    ) -> list[GuardFinding]:
        """A finding about ``option`` (``guard.limit``) if it is wrong; a warning only if it was right before."""
        if action == "off":
            return []
        if not wrong:
            self._warned.discard(option)
            return []
        if action == "warn" and option in self._warned:
            return []
        self._warned.add(option)
        guard = option.partition(".")[0]
        return [GuardFinding(guard, action, text, value, limit, {"option": f"guards.{option}", **(details or {})})]


def further_guards(specs: Sequence[ComponentSpec]) -> list[Guard]:
    """The user's own guards.

    Raises:
        UserError: one cannot be imported, is no guard, or an option is wrong.
    """
    return [build(spec, {}, Guard, f"guards.further.{index}") for index, spec in enumerate(specs)]


def _at(step: int, finding: GuardFinding) -> GuardFinding:
    """The finding with the step named."""
    return replace(finding, text=f"step {step}: {finding.text}")
