"""Everything that the page shows, as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cluster import __version__
from cluster.audit.recorded import audit_run
from cluster.report.diagnosis.diagnose import diagnose
from cluster.report.explanation import diagnosis_line
from cluster.report.page.curves import Axes, aggregate, all_curves, points_per_curve, thin, written
from cluster.report.page.phases import shown_events, timeline
from cluster.report.page.shown_samples import MAX_BYTES, shown_samples
from cluster.report.run_groups import Group, differing_settings, group_runs
from cluster.report.run_record import RunRecord
from cluster.report.verdict import verdict
from rollout.component import UserError

MAX_EVENTS = 300
MAX_AUDITED = 3
"""Runs on one page whose scores are audited, which takes seconds each; of more, `dvpo audit` tells."""


def payload(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The object that the page's script reads; see ``assets/`` for what it makes of it."""
    groups, axes = group_runs(runs), Axes()
    curves = [all_curves(run) for run in runs]
    most = points_per_curve(sum(map(len, curves)))
    shown = [
        _run(
            run,
            {key: written(thin(curve, most), axes) for key, curve in own.items()},
            MAX_BYTES // len(runs),
            len(runs) <= MAX_AUDITED,
        )
        for run, own in zip(runs, curves, strict=True)
    ]
    longest = max((len(curve) for own in curves for curve in own.values()), default=0)
    return {
        "version": __version__,
        "runs": shown,
        "groups": [_group(group, runs, curves, axes, most) for group in groups],
        "differing": differing_settings(runs, groups),
        "axes": axes.steps,  # after all that adds to it
        "thinned": {"points": most, "of": longest} if longest > most else None,
    }


def _run(run: RunRecord, curves: dict[str, Any], max_bytes: int, with_audit: bool) -> dict[str, Any]:
    summed, found, bars = verdict(run), diagnose(run), timeline(run)
    samples, belief = shown_samples(run, max_bytes)
    ledger = None
    if run.ledger is not None:
        ledger = {
            name: getattr(run.ledger, name) for name in ("states", "dropped", "reissued", "longest", "num_rollbacks")
        }
    return {
        "name": run.name,
        "folder": str(run.folder),
        "seed": run.settings.get("seed"),
        "state": summed.state,
        "headline": summed.headline,
        "facts": summed.facts,
        "diagnosis": diagnosis_line(found),
        "findings": [asdict(finding) for finding in found.findings],
        "unknown": [asdict(unknown) for unknown in found.unknown],
        "num_causes": found.num_rules,
        "problems": list(run.problems),
        "curves": curves,
        "timeline": bars,
        "events": shown_events(run, None if bars is None else bars["origin"], MAX_EVENTS),
        "num_events": len(run.events),
        "ledger": ledger,
        "audit": _audit(run) if with_audit else [f"for several runs: dvpo audit {run.folder}"],
        "samples": samples,
        "num_samples": len(run.trajectories),
        "belief": belief,
    }


def _group(
    group: Group, runs: Sequence[RunRecord], curves: Sequence[dict[str, Any]], axes: Axes, most: int
) -> dict[str, Any]:
    """A group with its aggregated curves, which a group of one run has no need of."""
    members = group.members
    shared: dict[str, Any] = {}
    if len(members) > 1:
        keys = [key for key in curves[members[0]] if all(key in curves[m] for m in members)]
        found = {key: aggregate([curves[m][key] for m in members], axes, most) for key in keys}
        shared = {key: curve for key, curve in found.items() if curve[1]}
    return {
        "label": group.label,
        "members": members,
        "curves": shared,
        "seeds": [runs[m].settings.get("seed") for m in members],
    }


def _audit(run: RunRecord) -> list[str]:
    """What a run's own scores say of its reward, transient and persistent errors told apart; or why nothing."""
    if run.ledger is None:
        return ["not known: there is no ledger that could be read"]
    try:
        return audit_run(run.folder).lines()
    except UserError as error:
        return [f"not known: {error}"]
