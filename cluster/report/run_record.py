"""A run's folder, read into one record. Nothing of the folder is changed, and the run may be going on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from actors.ledger.report import RUNS
from actors.recording.event_log import read_events
from actors.recording.sinks import read_metrics
from cluster.report.chat_template import ChatTemplate, read_chat_template
from cluster.report.ledger_facts import LedgerFacts, read_ledger
from cluster.report.metric_table import MetricTable
from cluster.report.samples import LoggedTrajectory, read_trajectories
from rollout.component import nearest
from rollout.component.mistakes import NoRun, NothingRecorded

METRICS, CONFIG = "metrics.jsonl", "config.yaml"
OF_TRUE_SCORES = ("reward/clean_", "reward/false_", "reward/j", "reward/corrupted_frac")
"""Metrics that compare with a true score. A run without one writes them too: its best guess is what it observed."""
MAX_NAMED = 5


class Settings:
    """A run's ``config.yaml`` as it was written, of whatever version."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``a.b.c``; ``default`` where a part is missing or None."""
        found: Any = self.values
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return default if found is None else found

    def flat(self) -> dict[str, str]:
        """Every leaf by its dotted key, as text."""
        return dict(_leaves("", self.values))

    @property
    def algorithm(self) -> str:
        """The preset or type of the method."""
        return str(self.get("algorithm.preset") or self.get("algorithm.type", "unknown"))


def _leaves(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            leaf for name, inner in value.items() for leaf in _leaves(f"{prefix}.{name}" if prefix else name, inner)
        ]
    return [(prefix, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value))]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that a report looks at.

    Attributes:
        folder: of the run.
        metrics: every step's numbers.
        settings: the configuration.
        events: lines of ``events.jsonl``, oldest first.
        status: ``status.json``; empty if there is none.
        ledger: counts, or None without a ledger that can be read.
        trajectories: those that were logged, by step.
        template: the chat template of the starting model, or None where its folder is not here.
        error: the last line of ``error.txt``; empty if the run did not end with one.
        problems: what could not be read or was not recorded, a sentence each.
    """

    folder: Path
    metrics: MetricTable
    settings: Settings = field(default_factory=lambda: Settings({}))
    events: Sequence[Mapping[str, Any]] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    ledger: LedgerFacts | None = None
    trajectories: Sequence[LoggedTrajectory] = ()
    template: ChatTemplate | None = None
    error: str = ""
    problems: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of the run: that of its configuration, else that of its folder."""
        return str(self.settings.get("name", self.folder.name))

    @property
    def num_steps(self) -> int | None:
        """Updates that it was to do; None if that is not known."""
        value = self.settings.get("training.num_steps")
        return value if isinstance(value, int) else None

    def events_of(self, kind: str) -> list[Mapping[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event.get("kind") == kind]


def find_run_folder(name: str) -> Path:
    """The folder of a run, from its path or its name in ``runs``.

    Raises:
        UserError: there is none, or the folder holds no run; the message says what would be right.
    """
    for folder in (Path(name), RUNS / name):
        if (folder / METRICS).is_file() or (folder / CONFIG).is_file():
            return folder
    for folder in (Path(name), RUNS / name):
        if folder.is_dir():
            hint = f"; it holds runs, name them: {', '.join(map(str, inside))}" if (inside := _runs_in(folder)) else ""
            raise NoRun(f"RUN: {folder} is no run: it has neither {METRICS} nor {CONFIG}{hint}")
        if folder.is_file():
            raise NoRun(f"RUN: {folder} is a file; give the folder of a run, such as {RUNS / 'demo'}")
    known = [path.parent.name for path in RUNS.glob(f"*/{CONFIG}")]
    raise NoRun(f"RUN: no such run: {name!r}; {nearest(name, known) if known else f'{RUNS} has none'}")


def _runs_in(folder: Path) -> list[Path]:
    """The first runs below a folder; those of a study lie five levels down."""
    for depth in range(1, 7):
        if found := sorted(path.parent for path in folder.glob("/".join([*["*"] * depth, METRICS]))):
            return found[:MAX_NAMED]
    return []


def read_run(folder: Path) -> RunRecord:
    """Read a run.

    Raises:
        UserError: it has no line of metrics, or a line in the middle is damaged; the message says which.
    """
    problems: list[str] = []
    error = _last_line(folder / "error.txt")
    if not (folder / METRICS).is_file():
        why = f"; it ended with: {error}" if error else ""
        raise NothingRecorded(f"RUN: {folder} has no {METRICS}: the run has done no step and no evaluation yet{why}")
    lines = read_metrics(folder / METRICS)
    if not lines:
        raise NothingRecorded(
            f"RUN: {folder / METRICS} has no whole line yet: the run has done no step and no evaluation"
        )
    if not all("step" in line for line in lines):
        raise NothingRecorded(f"RUN: {folder / METRICS}: a line has no 'step'; these are no metrics of dvpo")
    settings = Settings(_read_config(folder / CONFIG, problems))
    knows_truth = _knows_truth(lines, settings)
    if not knows_truth:
        problems.append(
            "no true score is known: there is no reward.gold, nor noise that was injected, so what the run calls clean "
            "is what it observed, and is left out here"
        )
        lines = [{key: v for key, v in line.items() if not key.startswith(OF_TRUE_SCORES)} for line in lines]
    trajectories = read_trajectories(folder / "trajectories", problems)
    if not knows_truth:
        trajectories = [replace(found, clean=None) for found in trajectories]
    if not trajectories:
        problems.append("no trajectories are logged (logging.trajectory_samples_per_step), so no text can be looked at")
    ledger = read_ledger(folder, {found.trajectory_id for found in trajectories}, problems)
    if ledger is None and not any(problem.startswith("the ledger") for problem in problems):
        problems.append("there is no ledger, so drops, repeats and cells are not known")
    return RunRecord(
        folder=folder,
        metrics=MetricTable(lines),
        settings=settings,
        events=read_events(folder / "events.jsonl"),
        status=_read_status(folder / "status.json"),
        ledger=ledger,
        trajectories=trajectories,
        template=read_chat_template(settings.get("model.path")),
        error=error,
        problems=tuple(problems),
    )


def read_settings(folder: Path) -> Settings:
    """The configuration of a run; empty where it cannot be read."""
    return Settings(_read_config(folder / CONFIG, []))


def _knows_truth(lines: Sequence[Mapping[str, float]], settings: Settings) -> bool:
    """Whether clean scores are more than the observed ones: of ``reward.gold``, or before injected noise or votes."""
    told = ("trust/num_rechecked", "votes/num_prompts")
    return bool(settings.get("reward.gold")) or any(
        any(key in line for key in told) or line.get("reward/corrupted_frac", 0.0) > 0.0 for line in lines
    )


def _read_config(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{CONFIG} cannot be read, so settings are not known: {' '.join(str(error).split())}")
        return {}
    if not isinstance(values, Mapping):
        problems.append(f"{CONFIG} holds no settings")
        return {}
    return values


def _read_status(path: Path) -> Mapping[str, Any]:
    """The newest status; nothing where it is missing or damaged, since it only says what is being done now."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
