"""What a study is made of: a base configuration, what its cells change of it, and seeds."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.config.yaml_source import ConfigSource, read_source
from rollout.component import PathText, StrictModel, UserError, validation_problems

Changes = dict[str, Any]
"""Values of the base configuration by dotted key, as in ``--set``."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
UNCHANGED: dict[str, Changes] = {"base": {}}
"""An axis that is not given: one entry, which changes nothing."""
NO_RL = "no-rl"
"""The row of the starting model, see ``report.no_rl``."""
MAX_SEEDS = 10_000
KEY = re.compile(r"\w+(\.\w+)*")


class Axes(StrictModel):
    """What is compared. Each axis has named entries; an entry says what it changes of the base configuration."""

    algorithm: dict[str, Changes] = Field(description="Methods that are compared, by name.")
    task: dict[str, Changes] = Field(
        default_factory=lambda: dict(UNCHANGED), description="Tasks, with the models that start on them, by name."
    )
    noise: dict[str, Changes] = Field(
        default_factory=lambda: dict(UNCHANGED), description="Noise of the reward, by name."
    )

    @field_validator("algorithm", "task", "noise")
    @classmethod
    def _names_are_fit_for_files(cls, entries: dict[str, Changes]) -> dict[str, Changes]:
        if not entries:
            raise ValueError("must have at least one entry")
        for name, changes in entries.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} names a folder: letters, digits, '.', '_' and '-', at most 40")
            _require_keys(changes)
        return entries


class GapConfig(StrictModel):
    """Two methods, between which the others are placed."""

    floor: str = Field(description="The method that makes 0: what noise leaves of it.")
    ceiling: str = Field(description="The method that makes 1: the same under clean rewards, say.")


class ReportConfig(StrictModel):
    """What ``dvpo study --report`` computes."""

    baseline: str | None = Field(None, description="The method that the others are compared with; the first one.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of every interval.")
    num_resamples: int = Field(10_000, ge=1000, le=1_000_000, description="Bootstrap samples of each interval.")
    clean: str | None = Field(
        None, description="The entry of axes.noise without noise: the reference of gaps and of outcome classes."
    )
    gap: GapConfig | None = Field(
        None, description="Two methods; the others are told how much of the way between them they make."
    )
    no_rl: bool = Field(
        False, description="Add a row no-rl: the starting model's score, which every cell evaluates before training."
    )
    regret_of: str | None = Field(
        None, description="A method that is compared with the best one of each cell in hindsight; or null."
    )
    bounds: tuple[str, ...] = Field(
        (), description="Entries of axes.algorithm that are no rivals but bounds, such as clean rewards: not the best."
    )


class StudyConfig(StrictModel):
    """A grid of runs: every method on every task under every noise with every seed."""

    base: PathText = Field(min_length=1, description="Configuration of a run, which every cell changes.")
    output: PathText = Field(min_length=1, description="Folder of the study: cells.jsonl, the report, folders of runs.")
    overrides: Changes = Field(default_factory=dict, description="Changes of the base for all cells, by dotted key.")
    axes: Axes = Field(description="What is compared.")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        min_length=1, description="A list of seeds, or {first: 0, count: 10}."
    )
    metrics: tuple[str, ...] = Field(
        ("eval/test/accuracy",),
        min_length=1,
        description="Metrics that cells.jsonl keeps at each evaluation: of it (eval/...) or of the step before it. The "
        "report has a table of each; what is over all tasks is about the first.",
    )
    processes: Literal["shared", "run"] = Field(
        "shared",
        description="'shared': a cell runs in one process that stays up for the next one; 'run': each cell is a run of "
        "its own as by `dvpo train`, with Ray, for what one process cannot do.",
    )
    num_slots: int | None = Field(
        None, ge=1, le=1024, description="Cells that run side by side; by default one a core if shared, else one."
    )
    cell_timeout_s: float = Field(7200.0, gt=0.0, description="Longest time of one cell; a longer one is a failure.")
    keep: Literal["metrics", "all"] = Field(
        "metrics", description="What stays of a cell's folder: its metrics, events and configuration, or everything."
    )
    report: ReportConfig = Field(default_factory=lambda: ReportConfig(), description="Statistics of the report.")

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_in_a_row(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        first, count = value.get("first", 0), value.get("count")
        numbers = [number for number in (first, count) if isinstance(number, int) and not isinstance(number, bool)]
        if len(numbers) < 2 or not set(value) <= {"first", "count"} or not 1 <= numbers[1] <= MAX_SEEDS:
            raise ValueError(f"must be a list of seeds, or {{first: 0, count: 10}} with a count of 1 to {MAX_SEEDS}")
        return list(range(first, first + numbers[1]))

    @field_validator("overrides")
    @classmethod
    def _overrides_have_keys(cls, changes: Changes) -> Changes:
        _require_keys(changes)
        return changes

    @model_validator(mode="after")
    def _report_names_entries(self) -> Self:
        methods = [*self.axes.algorithm, *([NO_RL] if self.report.no_rl else [])]
        if self.report.no_rl and NO_RL in self.axes.algorithm:
            raise ValueError(f"report.no_rl: adds a row {NO_RL!r}, and axes.algorithm has an entry of that name")
        for option, value, known in (
            ("baseline", self.report.baseline, self.axes.algorithm),
            ("clean", self.report.clean, self.axes.noise),
            ("gap.floor", self.report.gap and self.report.gap.floor, methods),
            ("gap.ceiling", self.report.gap and self.report.gap.ceiling, methods),
            ("regret_of", self.report.regret_of, self.axes.algorithm),
            *(("bounds", bound, methods) for bound in self.report.bounds),
        ):
            if value is not None and value not in known:
                raise ValueError(f"report.{option}: {value!r} is none of {', '.join(known)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is given twice; a second run of it would only repeat the first")
        return self

    @property
    def baseline(self) -> str:
        """The method that the others are compared with."""
        return self.report.baseline or next(iter(self.axes.algorithm))

    def cells(self) -> list[Cell]:
        """Every cell. Seeds are outermost: what is done at any time has as many seeds of one method as of another."""
        axes = self.axes
        grid = itertools.product(self.seeds, axes.task, axes.noise, axes.algorithm)
        return [Cell(algorithm=a, task=t, noise=n, seed=seed) for seed, t, n, a in grid]

    def changes(self, cell: Cell) -> Iterator[tuple[str, str, Any]]:
        """What a cell changes of the base, in order: where it is written in the study, the key, the value."""
        axes = self.axes
        parts: list[tuple[str, Mapping[str, Any]]] = [
            ("", QUIET),
            ("overrides", self.overrides),
            (f"axes.task.{cell.task}", axes.task[cell.task]),
            (f"axes.noise.{cell.noise}", axes.noise[cell.noise]),
            (f"axes.algorithm.{cell.algorithm}", axes.algorithm[cell.algorithm]),
        ]
        for place, changes in parts:
            yield from ((place, key, value) for key, value in changes.items())


QUIET: Changes = {
    "logging.progress": "none",
    "logging.tensorboard": False,
    "logging.trajectory_samples_per_step": 0,
    "training.checkpoint_every_steps": 0,
    "rollout.reproducible": True,
}
"""What a cell need not write, and that methods have random streams in common, unless the study says otherwise."""


class Cell(StrictModel):
    """One run of the grid, by the names of its entries."""

    algorithm: str
    task: str
    noise: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder, unique in the study."""
        return f"{self.task}/{self.noise}/{self.algorithm}/seed-{self.seed}"


def _require_keys(changes: Changes) -> None:
    for key in changes:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no dotted key of a configuration, such as reward.noise")
        if key == "seed":
            raise ValueError("seed: is an axis of its own; give it in 'seeds'")


def load_study(path: Path) -> StudyConfig:
    """Read a study's file.

    Raises:
        UserError: it cannot be read, or a key or value is wrong; the message names file, line and key.
    """
    source: ConfigSource = read_source(path)
    try:
        return StudyConfig.model_validate(source.data)
    except ValidationError as error:
        raise UserError(source.describe(validation_problems(error, StudyConfig))) from error


def seconds_in_words(seconds: float) -> str:
    """``2 h 5 min``."""
    if not math.isfinite(seconds):
        return "an unknown time"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
