"""Causes between learner and sampler: weights that do not arrive, and responses of weights that are long gone."""

from __future__ import annotations

import math

from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.diagnosis.signals import FELL, lost
from cluster.report.run_record import RunRecord


class StaleWeights(Rule):
    """Responses are sampled with weights that the learner has left behind, though they claim to be newer."""

    cause, title = "stale_weights", "New weights do not reach the sampler"
    why = (
        "Evaluations that agree to the last digit on every split while the policy moves are evaluations of the same "
        "weights, unless nothing or everything is right, or sampler and learner agree ten times as closely as the "
        "policy moved. A canary prompt that sampler and learner rate half a nat apart after a sync, or fresh responses "
        "a nat apart at the 99th percentile, are two policies: kernels alone differ by hundredths."
    )
    consequences = frozenset({"staleness_too_high", "lr_too_low", "lr_too_high", "critic_collapse"})
    MOVED, REPEATED, AGREES, CANARY, FRESH = 0.003, 3, 0.1, 0.5, 1.0

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        evidence = self._same_accuracies(run)
        canary, fresh = metrics.late("sync/canary_gap_max"), metrics.late("guard/sampler_gap")
        if canary >= self.CANARY:
            text = f"after a sync, sampler and learner rate the canary prompt {canary:.2f} nats apart"
            evidence.append(Evidence(source="sync/canary_gap_max", text=text))
        if fresh >= self.FRESH:
            text = f"fresh responses are rated {fresh:.2f} nats apart at the 99th percentile"
            evidence.append(Evidence(source="guard/sampler_gap", text=text))
        evidence += self._growing_gap(run)
        evidence += self._same_versions(run)
        if metrics.late("sync/weights_changed") == 0.0 and metrics.late("policy/grad_norm") > 0.0:
            text = "the weights of a sync do not differ from those before, though optimiser steps are taken"
            evidence.append(Evidence(source="sync/weights_changed", text=text))
        if not evidence:
            recorded = "sync/canary_gap_max" in metrics or "policy/sampler_logprob_gap_p95" in metrics
            return None if recorded else self.unknown("gaps between sampler and learner were not recorded")
        return self.found(
            "The sampler answers with old weights while it says that they are new.",
            evidence,
            [
                "--set rollout.verify_weights=true compares checksums and a canary after each sync, and stops",
                "--set rollout.weight_sync=object_store takes the other route of weights, to see which one loses them",
                "dvpo doctor (versions of vLLM with known faults)",
            ],
            0.92,
        )

    def _same_accuracies(self, run: RunRecord) -> list[Evidence]:
        """Evaluations that do not move while the policy does.

        Where none or all of the answers count, another policy need not show. And where sampler and learner were seen to
        agree far more closely than the policy moved, the sampler has moved with it.
        """
        metrics = run.metrics
        far = max(metrics.curve("policy/kl_to_start").values, default=math.nan)
        curves = [values for split in metrics.splits if (values := metrics.accuracy(split).values)]
        inside = [values for values in curves if 0.0 < values[0] < 1.0]
        repeated = sum(len(values) - 1 for values in inside)
        if any(len(set(values)) > 1 for values in curves) or repeated < self.REPEATED or not far >= self.MOVED:
            return []
        gaps = (metrics.late("sync/canary_gap_max"), metrics.late("guard/sampler_gap"))
        if any(gap <= self.AGREES * far for gap in gaps):
            return []
        text = (
            f"{max(map(len, inside))} evaluations on {len(inside)} splits gave the same accuracies to the last digit, "
            f"while the policy moved {far:.3f} nats a token"
        )
        return [Evidence(source="eval/SPLIT/accuracy", text=text)]

    def _growing_gap(self, run: RunRecord) -> list[Evidence]:
        """A gap that adds up over the run is the way since the weights that are sampled with."""
        key = "policy/sampler_logprob_gap_p95"
        gap, staleness = run.metrics.curve(key), run.metrics.late("rollout/staleness_mean")
        first, last = run.metrics.early(key), run.metrics.late(key)
        if len(gap) < 10 or not staleness <= 2.0 or last < 0.2 or last < 10.0 * max(first, 1e-3):
            return []
        half = gap.values[len(gap) // 2]
        if not first < half < last:
            return []
        text = f"the gap grows all the time: {first:.3f} nats at the start, {half:.3f} halfway, {last:.3f} now"
        return [Evidence(source=key, text=text)]

    def _same_versions(self, run: RunRecord) -> list[Evidence]:
        """Versions that do not move although steps do."""
        newest = [(sample.step, sample.versions[1]) for sample in run.trajectories if sample.versions is not None]
        if len({step for step, _ in newest}) < 5:
            return []
        (first_step, first), (last_step, last) = newest[0], newest[-1]
        if last > first or last_step - first_step < 5:
            return []
        text = f"responses of step {last_step} carry weight version {last}, like those of step {first_step}"
        return [Evidence(source="trajectories/", text=text)]


class StalenessTooHigh(Rule):
    """Responses of weights that are many updates old, honestly said."""

    cause, title = "staleness_too_high", "Responses are too many updates old"
    why = (
        "Eight updates behind is more than methods with clipped importance weights are known to take; from three on it "
        "counts if it shows: weights worth less than .8 of their number, .05 of them cut, or half a nat between "
        "sampler and learner."
    )
    consequences = frozenset({"lr_too_high"})
    ALWAYS, FROM, LEAST_ESS, CUT, GAP = 8.0, 3.0, 0.8, 0.05, 0.5

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        behind = metrics.late("rollout/staleness_mean")
        if not math.isfinite(behind):
            return self.unknown("the age of responses was not recorded")
        if behind < self.FROM:
            return None
        evidence = [
            Evidence(source="rollout/staleness_mean", text=f"responses are {behind:.1f} updates old on average")
        ]
        ess, cut = metrics.late("policy/importance_ess_frac"), metrics.late("policy/importance_truncated_frac")
        gap = metrics.late("guard/sampler_gap_stale")
        shown = [
            (
                "policy/importance_ess_frac",
                ess <= self.LEAST_ESS,
                f"importance weights are worth {ess:.2f} of their number",
            ),
            ("policy/importance_truncated_frac", cut >= self.CUT, f"{cut:.0%} of importance weights are cut"),
            (
                "guard/sampler_gap_stale",
                gap >= self.GAP,
                f"sampler and learner are {gap:.2f} nats apart at the 99th percentile",
            ),
        ]
        evidence += [Evidence(source=key, text=text) for key, is_so, text in shown if is_so]
        if behind < self.ALWAYS and len(evidence) == 1:
            return None
        limit = run.settings.get("training.max_staleness", "?")
        waits = metrics.late("time/wait_s"), metrics.late("time/step_s")
        if waits[1] > 0.0:
            text = f"the learner waits {waits[0] / waits[1]:.0%} of a step for responses"
            evidence.append(Evidence(source="time/wait_s", text=text))
        return self.found(
            f"Training uses responses of weights that are long gone (training.max_staleness is {limit}).",
            evidence,
            ["dvpo train CONFIG --set training.max_staleness=2 (1 is the default and hides most waiting)"],
            0.6 + 0.2 * (lost(run) >= FELL) + min(0.15, 0.01 * behind),
        )
