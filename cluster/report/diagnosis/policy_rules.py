"""Causes in how the policy is moved: too far, not at all, or into one answer."""

from __future__ import annotations

import math
from statistics import fmean, median
from typing import Any

from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.diagnosis.signals import FELL, has_gradient, held_out, lost, reward_scale, true_score
from cluster.report.run_record import RunRecord

SAMPLER_GAP = ("guard/sampler_gap_stale", "guard/sampler_gap")


def movement(run: RunRecord) -> float:
    """How far one update moves a token's log-probability at the 99th percentile, in nats; NaN if it is not recorded.

    Responses of older weights show it: the gap between sampler and learner is what the updates in between did.
    """
    gap, staleness = run.metrics.curve(SAMPLER_GAP[0]), run.metrics.late("rollout/staleness_mean")
    if not len(gap):
        return math.nan
    return median(gap.values[: max(3, len(gap) // 2)]) / max(1.0, staleness)


class LearningRateTooHigh(Rule):
    """Updates that throw the policy about."""

    cause, title = "lr_too_high", "The learning rate is too high"
    why = (
        "An update that moves the 99th percentile of tokens by half a nat (a factor of 1.6) leaves what a clip range "
        "of .2 is for; runs that learn move it by .02 to .15. A policy half a nat a token from its start, or a tenth "
        "of a nat in one update, forgets what it could. Each counts only together with a loss of .1 in score, or with "
        "steps that were not finite."
    )
    consequences = frozenset(
        {
            "truncation", "entropy_collapse", "critic_collapse", "stale_weights", "staleness_too_high", "too_hard",
            "hacked_phrase", "length_bias", "reward_drift", "prompts_repeated",
        }
    )  # fmt: skip
    MOVED, FROM_START, CLIPPED, KL = 0.5, 0.5, 0.3, 0.1

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        moved, far = movement(run), metrics.last("policy/kl_to_start")
        skipped = metrics.total("guard/num_nonfinite_steps")
        evidence = []
        if moved >= self.MOVED:
            text = f"one update moves the 99th percentile of tokens by {moved:.2f} nats"
            evidence.append(Evidence(source=SAMPLER_GAP[0], text=text))
        if far >= self.FROM_START:
            evidence.append(Evidence(source="policy/kl_to_start", text=f"{far:.2f} nats a token from its start"))
        clipped = metrics.curve("policy/clip_frac")
        if len(clipped) and median(clipped.values) >= self.CLIPPED:
            text = f"{median(clipped.values):.0%} of tokens are clipped in a usual update"
            evidence.append(Evidence(source="policy/clip_frac", text=text))
        if metrics.late("policy/approx_kl") >= self.KL:
            text = f"an update moves the policy by {metrics.late('policy/approx_kl'):.2f} nats a token"
            evidence.append(Evidence(source="policy/approx_kl", text=text))
        if skipped:
            text = f"{skipped:.0f} optimiser steps were not taken because a number was not finite"
            evidence.append(Evidence(source="guard/num_nonfinite_steps", text=text))
        if not evidence:
            recorded = any(key in metrics for key in (*SAMPLER_GAP, "policy/kl_to_start", "policy/clip_frac"))
            return None if recorded else self.unknown("nothing tells how far updates move the policy")
        fall = lost(run)
        if fall < FELL and not (skipped and moved >= self.MOVED) and not self._never_learned(run):
            return None
        key, curve = true_score(run)
        if len(curve):
            first, last = fmean(curve.early), fmean(curve.late)
            text = f"{first:.2f} at the start, {max(first, curve.best):.2f} at best, {last:.2f} at the end"
            evidence.append(Evidence(source=key, text=text))
        rate = metrics.last("policy/lr")
        return self.found(
            f"Updates are too large (policy_lr {rate:.2g}): the policy is thrown about and has lost what it could.",
            evidence,
            [
                f"train again with a tenth: dvpo train CONFIG --set learner.policy_lr={rate / 10:.1g}",
                "guards.kl.action: rollback goes back to a checkpoint by itself (docs/guards.md)",
            ],
            0.75 + min(0.24, 0.1 * (moved if math.isfinite(moved) else 1.0)),
        )

    def _never_learned(self, run: RunRecord) -> bool:
        """Whether it moved far and ended no better than it began."""
        score = held_out(run)
        return score.number > 1 and score.last < score.first - score.error


class LearningRateTooLow(Rule):
    """A policy that stays where it began."""

    cause, title = "lr_too_low", "The learning rate is too low"
    why = (
        "After 20 updates, less than .002 nats a token from the start (runs that learn are at .01 to .1), no gain on "
        "held-out questions beyond their interval, and prompts whose scores differ: there is something to learn."
    )
    LEAST_STEPS, STILL = 20, 0.002

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics, far = run.metrics, run.metrics.last("policy/kl_to_start")
        if metrics.last_step < self.LEAST_STEPS:
            return self.unknown(f"fewer than {self.LEAST_STEPS} updates are done")
        if not math.isfinite(far):
            return self.unknown("policy/kl_to_start was not measured (logging.kl_to_start_every)")
        score = held_out(run)
        _, curve = true_score(run)
        learned = score.gained > score.error or (len(curve) and curve.rise > max(0.05, 3.0 * curve.rise_error))
        if far >= self.STILL or learned or not has_gradient(run) or not metrics.late("policy/grad_norm") > 0.0:
            return None
        rate = metrics.last("policy/lr")
        evidence = [
            Evidence(
                source="policy/kl_to_start",
                text=f"{far:.1e} nats a token from its start after {metrics.last_step} updates",
            ),
            Evidence(
                source="policy/grad_norm", text=f"the gradient is there: norm {metrics.late('policy/grad_norm'):.2g}"
            ),
        ]
        if score.number > 1:
            evidence.append(
                Evidence(source=score.key, text=f"held-out accuracy {score.first:.3f}, now {score.last:.3f}")
            )
        return self.found(
            f"The policy has hardly moved (policy_lr {rate:.2g}), though there is something to learn.",
            evidence,
            [f"train again with ten times as much: dvpo train CONFIG --set learner.policy_lr={10 * rate:.1g}"],
            0.6,
        )


class EntropyCollapse(Rule):
    """One answer to everything, long before it is the right one."""

    cause, title = "entropy_collapse", "The policy's entropy has collapsed"
    why = (
        "A tenth of the first entropy while the score is still below .9 of its range: a policy that has learned the "
        "task is rightly sure, one that has not can no longer find out."
    )
    consequences = frozenset({"lr_too_low", "prompts_repeated"})
    SHARE, SOLVED = 0.1, 0.9

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        first, last = metrics.early("policy/entropy"), metrics.late("policy/entropy")
        if not math.isfinite(first):
            return self.unknown("the entropy was not recorded")
        key, curve = true_score(run)
        reached = fmean(curve.late) / reward_scale(run) if len(curve) else math.nan
        accuracy = held_out(run).last
        if (
            first <= 0.0
            or last > self.SHARE * first
            or max(reached, accuracy if math.isfinite(accuracy) else 0.0) >= self.SOLVED
        ):
            return None
        evidence = [
            Evidence(
                source="policy/entropy", text=f"{first:.3g} nats at the start, {last:.3g} now ({last / first:.1%})"
            ),
            Evidence(source=key, text=f"the score is {reached:.2f}, so it is not because the task is learned"),
        ]
        guards = [e for e in run.events_of("guard") if e.get("guard") == "entropy"]
        evidence += [Evidence.of_event(event) for event in guards[:1]]
        coef = run.settings.get("algorithm.entropy_coef", 0.0)
        if isinstance(coef, int | float) and coef < 0.0:
            evidence.append(Evidence(source="config.yaml", text=f"algorithm.entropy_coef is {coef:g}: it is paid for"))
        return self.found(
            "The policy says one thing with certainty and explores no more.",
            evidence,
            [
                "go on from a checkpoint before it, with a bonus: --set algorithm.entropy_coef=0.003",
                "or a wider upper clip range (algorithm.clip_ratio_high: 0.28), or a lower learner.policy_lr",
            ],
            0.65,
        )


class Truncation(Rule):
    """Responses cut at the limit."""

    cause, title = "truncation", "Responses are cut off"
    why = (
        "A fifth of the responses cut: a cut response has no final answer and scores 0 whatever it would have said, so "
        "the policy learns to be short instead of right. Of a held-out split, half: the accuracy there is of the limit."
    )
    consequences = frozenset({"length_bias", "too_hard"})
    SHARE, OF_A_SPLIT = 0.2, 0.5

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        key = "rollout/truncated_frac"
        late = run.metrics.late(key)
        if not math.isfinite(late):
            return self.unknown("how many responses were cut was not recorded")
        limit = run.settings.get("rollout.sampling.max_response_tokens", "?")
        if late < self.SHARE:
            return self._held_out(run, limit)
        early = run.metrics.early(key)
        text = f"{late:.0%} of responses are cut at {limit} tokens, {early:.0%} at the start"
        cut = [s for s in run.trajectories if s.finish_reason == "length" and s.observed is not None]
        whole = [s for s in run.trajectories if s.finish_reason == "stop" and s.observed is not None]
        evidence = [Evidence(source=key, text=text)]
        if cut and whole:
            means = fmean(s.observed or 0.0 for s in cut), fmean(s.observed or 0.0 for s in whole)
            text = f"logged responses that were cut score {means[0]:.2f}, whole ones {means[1]:.2f}"
            evidence.append(Evidence(source="trajectories/", text=text))
        steps = [*_more_room(limit), "read what they say at the end: they loop, or they are not done"]
        return self.found("Many responses end at the limit, not at their end.", evidence, steps, 0.4 + 0.5 * late)

    def _held_out(self, run: RunRecord, limit: Any) -> Finding | None:
        """Evaluation alone: its questions need more room than those of training."""
        cut = {split: run.metrics.last(f"eval/{split}/truncated_frac") for split in run.metrics.splits}
        evidence = [
            Evidence(
                source=f"eval/{split}/truncated_frac", text=f"{share:.0%} of the answers are cut at {limit} tokens"
            )
            for split, share in sorted(cut.items(), key=lambda item: -item[1])
            if share >= self.OF_A_SPLIT
        ]
        if not evidence:
            return None
        return self.found("Answers to held-out questions end at the limit.", evidence, _more_room(limit), 0.6)


def _more_room(limit: Any) -> list[str]:
    if not isinstance(limit, int):
        return []
    return [f"give more room: dvpo train CONFIG --set rollout.sampling.max_response_tokens={2 * limit}"]
