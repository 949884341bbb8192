"""``dvpo explain``: the verdict and the diagnosis of a run as lines and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from cluster.display.report import format_table
from cluster.report.diagnosis.diagnose import Diagnosis, diagnose
from cluster.report.run_record import RunRecord
from cluster.report.verdict import verdict

WIDTH = 100


def explanation(run: RunRecord) -> dict[str, Any]:
    """Everything, for JSON."""
    found = diagnose(run)
    summed = verdict(run)
    return {
        "run": str(run.folder),
        "state": summed.state,
        "headline": summed.headline,
        "facts": dict(summed.facts),
        "findings": [asdict(finding) for finding in found.findings],
        "unknown": [asdict(unknown) for unknown in found.unknown],
        "num_causes": found.num_rules,
        "problems": list(run.problems),
    }


def explanation_lines(run: RunRecord) -> list[str]:
    """The same for people."""
    summed, found = verdict(run), diagnose(run)
    lines = [f"{run.name} ({run.folder})", *_wrap(summed.headline), "", *format_table(summed.facts), ""]
    lines += _finding_lines(found)
    if found.unknown:
        lines += ["", "could not be looked for:"]
        lines += [line for unknown in found.unknown for line in _wrap(f"{unknown.title}: {unknown.reason}", "  - ")]
    if run.problems:
        lines += ["", "not known of this run:"]
        lines += [line for problem in run.problems for line in _wrap(problem, "  - ")]
    return lines


def diagnosis_line(found: Diagnosis) -> str:
    """The result in one sentence."""
    looked = found.num_rules - len(found.unknown)
    if not found.findings:
        return f"nothing looks wrong: none of {looked} known causes was found"
    first = [finding for finding in found.findings if not finding.follows_from]
    return f"{len(found.findings)} of {looked} known causes found; look first at: {first[0].title if first else ''}"


def _finding_lines(found: Diagnosis) -> list[str]:
    lines = [diagnosis_line(found)]
    titles = {finding.cause: finding.title for finding in found.findings}
    for number, finding in enumerate(found.findings, 1):
        lines += ["", *_wrap(f"{finding.title}. {finding.summary}", f"{number}. ")]
        if finding.follows_from:
            reasons = " and ".join(f"'{titles[cause]}'" for cause in finding.follows_from)
            lines += _wrap(f"may well follow from {reasons}: mend that first", "   ")
        lines += [line for fact in finding.evidence for line in _wrap(f"{fact.source}: {fact.text}", "   - ")]
        lines += _wrap(f"why this limit: {finding.why}", "   ")
        lines += [line for step in finding.next_steps for line in _wrap(step, "   > ")]
    return lines


def _wrap(text: str, begin: str = "") -> list[str]:
    rest = " " * len(begin)
    # A command that is cut in two cannot be copied.
    return textwrap.wrap(
        text, WIDTH, initial_indent=begin, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
