"""The check of a run in another process than the command's, which loads nothing heavy itself.

What the check loads, workers need as well, so it is made in a fork of the process that they will be forked from: torch
and transformers are loaded once instead of twice, and the rest while the check is still going on.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from cluster.check.check import CheckReport, check_run
from cluster.config.processes.joined_cluster import joined_address
from cluster.config.processes.workers_environment import preload_environment
from cluster.config.run_config import RunConfig
from cluster.config.run_facts import RunFacts, run_facts
from cluster.preload.head_start import HeadStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A run that is to be checked; see :func:`cluster.check.check.check_run`."""

    config: RunConfig
    resume: str | None
    overwrite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the check found.

    Attributes:
        facts: of the run; None if it has mistakes, or if they are still to be found.
    """

    report: CheckReport
    facts: RunFacts | None = None


def head_start(config: RunConfig) -> AbstractContextManager[HeadStart | None]:
    """What the workers of a run will be forked from, loading already; None where there is nothing to be gained.

    That is where no Ray is started, where workers are not forked, or where this process has loaded torch already.
    """
    joins = joined_address(config) is not None
    if joins or "torch" in sys.modules or (environment := preload_environment(config)) is None:
        return nullcontext()
    return HeadStart(environment)


def check_apart(question: Question, start: HeadStart | None) -> Checked:
    """Check a run where ``start`` is, or here where there is none, or where whatever it was made in has failed."""
    checked = start.ask(f"{__name__}:{answer.__name__}", question) if start is not None else None
    if isinstance(checked, Checked):
        return checked
    return Checked(report=check_run(question.config, resume=question.resume, overwrite=question.overwrite))


def answer(question: Question) -> Checked:
    """What is found in the process that makes the check."""
    report = check_run(question.config, resume=question.resume, overwrite=question.overwrite)
    return Checked(report=report, facts=None if report.errors else run_facts(question.config))
