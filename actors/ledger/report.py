"""``dvpo ledger``: the accounting of a run's samples, and the proof that it balances.

The ledger is compared with itself (:mod:`actors.ledger.balance`) and with ``metrics.jsonl``, which is written by
another way: each step trained on as many trajectories as the ledger says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.ledger.account import Account, list_samples, read_account
from actors.ledger.balance import Balance, check_balance
from actors.ledger.errors import LedgerError
from actors.ledger.file import open_for_reading
from actors.ledger.samples import SampleState
from actors.recording.sinks import read_metrics
from rollout.component import UserError, nearest
from rollout.component.mistakes import NoRun, NothingRecorded

LEDGER_NAME = "ledger.sqlite"
RUNS = Path("runs")
NUM_TRAJECTORIES = "rollout/num_trajectories"
NUM_NAMED = 5
CLOCK_S = 0.001
"""Times in metrics.jsonl are rounded to this."""


@dataclass(frozen=True, slots=True)
class CommittedStep:
    """A step of the ledger.

    Attributes:
        num_samples: samples that were trained on.
        committed_at: when, in seconds since 1970.
        redone: whether an earlier attempt at this step was undone.
    """

    num_samples: int
    committed_at: float
    redone: bool


@dataclass(frozen=True, slots=True)
class MetricsCheck:
    """How the metrics compare with the ledger.

    Attributes:
        num_steps: steps whose numbers are equal.
        violations: what cannot be, one sentence each.
        notes: what could not be compared, and why that can be.
    """

    num_steps: int
    violations: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """Everything that ``dvpo ledger`` shows."""

    run_dir: Path
    account: Account
    balance: Balance
    metrics: MetricsCheck

    @property
    def violations(self) -> tuple[str, ...]:
        """What must not be and is."""
        return self.balance.violations + self.metrics.violations

    @property
    def verdict(self) -> str:
        """The last line."""
        states = self.account.states
        num_trained, num_dropped = states[SampleState.TRAINED], states[SampleState.DROPPED]
        num_waiting = sum(states.values()) - num_trained - num_dropped
        counts = [
            f"{sum(states.values())} samples",
            f"{num_trained} trained once",
            f"{num_dropped} dropped with a reason",
            *([f"{num_waiting} waiting"] if num_waiting else []),
            f"{self.balance.num_lost} lost",
            f"{self.balance.num_trained_twice} trained twice",
        ]
        if not self.violations:
            return f"balanced: {', '.join(counts)}"
        number = len(self.violations)
        counts[1] = f"{num_trained} trained"
        return f"NOT balanced ({number} violation{'s' * (number > 1)}): {', '.join(counts)}"

    def as_json(self) -> dict[str, Any]:
        """All numbers; what is not known is None."""
        report: dict[str, Any] = _finite(asdict(self.account))
        return {
            "run": str(self.run_dir),
            **report,
            "num_lost": self.balance.num_lost,
            "num_trained_twice": self.balance.num_trained_twice,
            "num_steps_compared_with_metrics": self.metrics.num_steps,
            "notes": list(self.metrics.notes),
            "violations": list(self.violations),
            "balanced": not self.violations,
            "verdict": self.verdict,
        }


def find_run(name: str) -> Path:
    """The folder of a run that has a ledger, from its path or its name in ``runs``.

    Raises:
        UserError: there is none.
    """
    for folder in (Path(name), RUNS / name):
        if (folder / LEDGER_NAME).is_file():
            return folder
    for folder in (Path(name), RUNS / name):
        if folder.is_dir():
            raise NothingRecorded(
                f"RUN: {folder} has no {LEDGER_NAME}: it is no run, or one that did not begin to train"
            )
    known = [file.parent.name for file in RUNS.glob(f"*/{LEDGER_NAME}")]
    hint = nearest(name, known) if known else f"{RUNS} has none with a ledger"
    raise NoRun(f"RUN: no such run: {name!r}; {hint}")


def build_report(run_dir: Path) -> LedgerReport:
    """Read and check the ledger of a run, which may be going on.

    Raises:
        LedgerError: the ledger cannot be read at all.
    """
    records: list[dict[str, float]] | None = None
    problem = ""
    try:  # before the ledger, which a step reaches first: the metrics cannot be ahead of what is read next
        if (run_dir / "metrics.jsonl").exists():
            records = read_metrics(run_dir / "metrics.jsonl")
    except UserError as error:
        problem = str(error)
    with open_for_reading(run_dir / LEDGER_NAME) as db:
        account = read_account(db)
        found = check_balance(db, account.num_prompts, account.samples_per_prompt)
        undone = {step for (step,) in db.execute("SELECT DISTINCT step FROM undone_steps")}
        rows = db.execute("SELECT step, num_samples, committed_at FROM steps")
        steps = {step: CommittedStep(number, committed_at, step in undone) for step, number, committed_at in rows}
    if problem:
        checked = MetricsCheck(0, (problem,), ())
    elif records is None:
        checked = MetricsCheck(0, (), ("there is no metrics.jsonl to compare with",) if steps else ())
    else:
        checked = compare_metrics(records, steps, undone)
    return LedgerReport(run_dir, account, found, checked)


def num_steps(ledger: Path) -> int | None:
    """The last step that a ledger knows to be trained, 0 without a file; None if it cannot be read."""
    if not ledger.exists():
        return 0
    try:
        with open_for_reading(ledger) as db:
            (last,) = db.execute("SELECT MAX(step) FROM steps").fetchone()
    except LedgerError:
        return None  # whoever opens it will say why
    return int(last or 0)


def read_list(run_dir: Path, state: SampleState) -> list[dict[str, Any]]:
    """The samples in one state; see :func:`actors.ledger.account.list_samples`."""
    with open_for_reading(run_dir / LEDGER_NAME) as db:
        return list_samples(db, state)


def compare_metrics(
    records: Sequence[Mapping[str, float]], steps: Mapping[int, CommittedStep], undone: set[int]
) -> MetricsCheck:
    """Compare the number of trajectories that each step reported with the ledger.

    After a restart, lines of steps that were undone stay in the file until the first step is reported again, and the
    line of a step is lost if the run is killed between its commit and its report. Both are told, as notes.

    Args:
        records: lines of ``metrics.jsonl``.
        steps: what the ledger was committed with.
        undone: steps that the ledger has undone at some time.
    """
    violations: list[str] = []
    reported: set[int] = set()
    old: set[int] = set()
    for record in records:
        if NUM_TRAJECTORIES not in record:
            continue
        step, number = int(record["step"]), record[NUM_TRAJECTORIES]
        if step in reported:
            violations.append(f"metrics.jsonl reports step {step} twice")
        reported.add(step)
        known = steps.get(step)
        if known is None and step not in undone:
            violations.append(f"metrics.jsonl reports step {step}, which was not committed")
        # A line that is older than the commit was written by the attempt that was undone.
        elif known is None or (known.redone and record["time"] + CLOCK_S < known.committed_at):
            old.add(step)
        elif number != known.num_samples:
            violations.append(
                f"step {step}: metrics.jsonl reports {number:g} trajectories, {known.num_samples} were committed"
            )
    notes = []
    silent = sorted(step for step, known in steps.items() if step not in reported and known.num_samples)
    if silent:
        notes.append(f"no line in metrics.jsonl, so not compared: steps {_shorten(silent)}")
    if old:
        notes.append(
            f"the line in metrics.jsonl is from before a restart, so not compared: steps {_shorten(sorted(old))}"
        )
    return MetricsCheck(len((reported & steps.keys()) - old), tuple(violations), tuple(notes))


def _shorten(steps: Sequence[int]) -> str:
    """The first few of a list."""
    return ", ".join(map(str, steps[:NUM_NAMED])) + (f", ... ({len(steps)} in all)" if len(steps) > NUM_NAMED else "")


def _finite(value: Any) -> Any:
    """Put None in the place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
