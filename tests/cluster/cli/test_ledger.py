"""``dvpo ledger``: what it shows, proves and refuses, on ledgers as runs leave them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from actors.ledger.ledger import Ledger
from actors.ledger.report import CommittedStep, MetricsCheck, compare_metrics

ROOT = Path(__file__).resolve().parents[3]
Dvpo = Callable[..., Result]
PROMPTS, SIZE, PER_STEP = 4, 2, 2
FAR = 9e9  # seconds since 1970, after every commit of a test


class Run:
    """A run of 4 prompts, 2 samples each, 2 prompts a step, in ``runs/demo`` of the working folder."""

    def __init__(self) -> None:
        self.folder = Path("runs/demo")
        self.folder.mkdir(parents=True)
        self.ledger = Ledger(self.folder / "ledger.sqlite", num_prompts=PROMPTS, samples_per_prompt=SIZE)
        self.step = 0

    def train(self, dropped: dict[str, str] | None = None, reported: bool = True, time: float = FAR) -> None:
        """One step; ``dropped`` has reasons by sample."""
        position = self.ledger.position()
        indexes = [*position.unfinished, *range(position.next_index, position.next_index + PER_STEP)][:PER_STEP]
        self.step += 1
        ids = []
        for index in indexes:
            epoch, place = divmod(index, PROMPTS)
            self.ledger.admit(index, f"p-{place}", epoch, epoch * SIZE, SIZE)
            for name in (f"p-{place}#{epoch * SIZE + i}" for i in range(SIZE)):
                if dropped is not None and name in dropped:
                    self.ledger.drop(name, dropped[name], self.step)
                else:
                    self.ledger.ready(name, 20 + index)
                    ids.append(name)
        self.ledger.commit_step(self.step, ids)
        if reported:
            self.report(self.step, len(ids), time)

    def report(self, step: int, number: int, time: float = FAR) -> None:
        """Append a line to metrics.jsonl."""
        line = {"step": step, "time": time, "rollout/num_trajectories": float(number)}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def rollback(self, step: int) -> None:
        self.ledger.rollback(step)
        self.step = step


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run()


def test_the_whole_report(run: Run, dvpo: Dvpo) -> None:
    run.train()
    run.train({"p-2#0": "no score: timeout", "p-3#0": "quarantined: two workers died", "p-3#1": "quarantined: same"})
    run.ledger.mark_checkpoint(2)
    run.train()
    run.rollback(2)
    run.train()
    run.ledger.admit(6, "p-2", 1, 2, 2)
    run.ledger.reissue("p-2#2", "rollout worker died")
    (run.folder / "metrics.jsonl").write_text("")
    for step, number in ((1, 4), (2, 1), (3, 4)):
        run.report(step, number)
    result = dvpo("ledger", "demo")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "ledger of runs/demo: 4 prompts an epoch, 2 samples a prompt; 3 steps committed, last checkpoint marked at "
        "step 2",
        "",
        "pending  in_flight  ready  trained  dropped",
        "      0          2      0        9        3",
        "",
        "epoch  prompts  admitted  complete  trained  dropped  waiting",
        "    0        4         4         4        5        3        0",
        "    1        4         3         2        4        0        2",
        "",
        "dropped  epochs  reason",
        "      1       0  no score: timeout",
        "      1       0  quarantined: same",
        "      1       0  quarantined: two workers died",
        "",
        "asked again  trained   mean tokens  cause",
        "          1        0             -  rollout worker died",
        "          4        4  24.50 ± 0.29  restart of the run",
        "                   4  24.50 ± 0.29  (all that were asked for again)",
        "                   5  20.80 ± 0.37  (all others)",
        "",
        "undone by restarts: 4 trained samples of 1 step, in 1 restart",
        "quarantined prompts: p-3",
        "",
        "proved: places 0 to 6 of the sequence have no gap; each prompt has its 2 samples, each in one state; no "
        "prompt is missing from an epoch or in it twice; steps 1 to 3 were committed once each, with the samples that "
        "say so; 3 of them agree with metrics.jsonl",
        "balanced: 14 samples, 9 trained once, 3 dropped with a reason, 2 waiting, 0 lost, 0 trained twice",
    ]


def test_a_ledger_that_has_just_begun(run: Run, dvpo: Dvpo) -> None:
    result = dvpo("ledger", "demo")
    assert result.exit_code == 0
    assert "no step committed, no checkpoint marked" in result.stdout
    assert "asked for again: no sample" in result.stdout
    assert "undone by restarts: nothing\nquarantined prompts: none\n" in result.stdout
    assert result.stdout.splitlines()[-2:] == [
        "proved: nothing was admitted yet",
        "balanced: 0 samples, 0 trained once, 0 dropped with a reason, 0 lost, 0 trained twice",
    ]


def test_json_says_the_same(run: Run, dvpo: Dvpo) -> None:
    run.train({"p-0#1": "no score: timeout"})
    run.train()
    result = dvpo("ledger", "runs/demo", "--json")
    assert result.exit_code == 0
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["states"] == {"pending": 0, "in_flight": 0, "ready": 0, "trained": 7, "dropped": 1}
    assert report["epochs"] == [
        {
            "epoch": 0,
            "num_prompts": 4,
            "num_admitted": 4,
            "num_complete": 4,
            "num_trained": 7,
            "num_waiting": 0,
            "dropped": {"no score: timeout": 1},
        }
    ]
    assert report["reissues"]["again"] == {"num_samples": 0, "mean": None, "standard_error": None}
    assert (report["balanced"], report["violations"], report["num_lost"]) == (True, [], 0)
    assert report["verdict"] == (
        "balanced: 8 samples, 7 trained once, 1 dropped with a reason, 0 lost, 0 trained twice"
    )


def test_lists(run: Run, dvpo: Dvpo) -> None:
    run.train({"p-0#1": "no score: timeout"})
    assert dvpo("ledger", "demo", "--list", "trained").stdout == "p-0#0\np-1#0\np-1#1\n"
    assert dvpo("ledger", "demo", "--list", "pending").stdout == ""
    dropped = json.loads(dvpo("ledger", "demo", "--list", "dropped", "--json").stdout)
    assert dropped == [
        {"trajectory_id": "p-0#1", "group_index": 0, "step": 1, "num_tokens": None, "reason": "no score: timeout"}
    ]
    assert dvpo("ledger", "demo", "--list", "eaten").exit_code == 2


@pytest.mark.parametrize(
    ("statement", "violation", "counts"),
    [
        (
            "DELETE FROM samples WHERE trajectory_id = 'p-1#0'",
            "groups that do not have 2 samples: 1 (p-1)",
            "7 samples, 7 trained, 0 dropped with a reason, 1 lost, 0 trained twice",
        ),
        (
            "UPDATE samples SET state = 'pending', step = NULL WHERE group_index = 0",
            "samples committed at a step and not recorded as trained on there: p-0#0, p-0#1",
            "8 samples, 6 trained, 0 dropped with a reason, 2 waiting, 0 lost, 0 trained twice",
        ),
    ],
)
def test_bookkeeping_that_was_changed(statement: str, violation: str, counts: str, run: Run, dvpo: Dvpo) -> None:
    run.train()
    run.train()
    run.ledger.close()
    with closing(sqlite3.connect(run.folder / "ledger.sqlite", isolation_level=None)) as db:
        db.execute(statement)
    result = dvpo("ledger", "demo")
    assert result.exit_code == 1
    assert f"violation: {violation}" in result.stdout.splitlines()
    assert "proved" not in result.stdout
    verdict = result.stdout.splitlines()[-1]
    assert verdict.startswith("NOT balanced (") and verdict.endswith(f": {counts}")
    report = json.loads(dvpo("ledger", "demo", "--json").stdout)
    assert violation in report["violations"] and report["balanced"] is False


def test_metrics_that_say_something_else(run: Run, dvpo: Dvpo) -> None:
    run.train()
    run.train(reported=False)
    run.report(2, 3)
    result = dvpo("ledger", "demo")
    assert result.exit_code == 1
    assert "violation: step 2: metrics.jsonl reports 3 trajectories, 4 were committed" in result.stdout
    (run.folder / "metrics.jsonl").write_text("{}\nnonsense\n{}\n")
    assert "violation: runs/demo/metrics.jsonl:2: not a JSON object" in dvpo("ledger", "demo").stdout
    (run.folder / "metrics.jsonl").unlink()
    result = dvpo("ledger", "demo")
    assert (result.exit_code, "note: there is no metrics.jsonl" in result.stdout) == (0, True)


def test_metrics_after_a_restart(run: Run, dvpo: Dvpo) -> None:
    """Lines of undone steps are told apart from lines that contradict the ledger."""
    for _ in range(3):
        run.train(time=1.0)
    run.rollback(1)
    result = dvpo("ledger", "demo")
    assert result.exit_code == 0
    assert "note: the line in metrics.jsonl is from before a restart, so not compared: steps 2, 3" in result.stdout
    run.train({"p-2#0": "no score"}, reported=False)  # done anew, with another number; its line is still the old one
    assert dvpo("ledger", "demo").exit_code == 0
    run.report(2, 3)
    assert "violation: metrics.jsonl reports step 2 twice" in dvpo("ledger", "demo").stdout


def test_comparison_step_by_step() -> None:
    steps = {step: CommittedStep(4, 100.0, step == 3) for step in range(1, 8)}
    key = "rollout/num_trajectories"
    records = [
        {"step": 0, "time": 99.0, "eval/test/accuracy": 0.5},
        {"step": 1, "time": 99.0, key: 4.0},  # the clock may have been set: only a step that was redone can be old
        {"step": 2, "time": 101.0, key: 5.0},
        {"step": 3, "time": 99.0, key: 9.0},
        {"step": 8, "time": 101.0, key: 4.0},
        {"step": 9, "time": 101.0, key: 4.0},
    ]
    assert compare_metrics(records, steps, undone={3, 9}) == MetricsCheck(
        2,
        (
            "step 2: metrics.jsonl reports 5 trajectories, 4 were committed",
            "metrics.jsonl reports step 8, which was not committed",
        ),
        (
            "no line in metrics.jsonl, so not compared: steps 4, 5, 6, 7",
            "the line in metrics.jsonl is from before a restart, so not compared: steps 3, 9",
        ),
    )


def test_many_epochs_and_reasons_are_summed(run: Run, dvpo: Dvpo) -> None:
    for step in range(40):
        epoch = step // 2
        run.train({f"p-{0 if step % 2 == 0 else 2}#{epoch * SIZE}": f"reason {epoch}"})
    lines = dvpo("ledger", "demo").stdout.splitlines()
    rows = lines[lines.index("epoch  prompts  admitted  complete  trained  dropped  waiting") + 1 :]
    assert rows[0].split() == ["0-7", "32", "32", "32", "48", "16", "0"]
    assert rows[1].split() == ["8", "4", "4", "4", "6", "2", "0"]
    assert rows[13] == ""
    assert "... and 16 for 8 other reasons" in lines
    assert len(json.loads(dvpo("ledger", "demo", "--json").stdout)["epochs"]) == 20


def test_no_ledger(run: Run, dvpo: Dvpo) -> None:
    Path("runs/empty").mkdir()
    for name, message in (
        ("dmo", "error: RUN: no such run: 'dmo'; did you mean 'demo'? valid: demo [run-not-found]\n"),
        (
            "empty",
            "error: RUN: runs/empty has no ledger.sqlite: it is no run, or one that did not begin to train "
            "[run-nothing-recorded]\n",
        ),
    ):
        result = dvpo("ledger", name)
        assert (result.exit_code, result.stderr) == (2, message)
    run.ledger.close()
    (run.folder / "ledger.sqlite").unlink()
    assert dvpo("ledger", "x").stderr == "error: RUN: no such run: 'x'; runs has none with a ledger [run-not-found]\n"


def test_a_file_that_cannot_be_read(run: Run, dvpo: Dvpo) -> None:
    run.ledger.close()
    (run.folder / "ledger.sqlite").write_text("once upon a time " * 100)
    result = dvpo("ledger", "demo")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: runs/demo/ledger.sqlite: file is not a database [run-ledger]\n",
    )


WRITER = """
import sys
from pathlib import Path
from actors.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), num_prompts=1000, samples_per_prompt=1)
step = 0
while True:
    for index in range(step * 8, step * 8 + 8):
        ledger.admit(index, f"p-{index % 1000}", index // 1000, index // 1000, 1)
        ledger.ready(f"p-{index % 1000}#{index // 1000}", 5)
    step += 1
    ledger.commit_step(step, [f"p-{i % 1000}#{i // 1000}" for i in range(step * 8 - 8, step * 8)])
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_run_that_goes_on_and_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvpo: Dvpo
) -> None:
    """Each look is at one moment, later looks see more, and reading does not stop the writer."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/demo")
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", WRITER, str(tmp_path / folder / "ledger.sqlite")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        looks = [0]
        for _ in range(5):
            told = next(step for step in map(int, writer.stdout) if step > looks[-1])
            report = json.loads(dvpo("ledger", "demo", "--json").stdout)
            assert report["violations"] == []
            assert report["last_step"] >= told
            looks.append(report["last_step"])
        os.kill(writer.pid, signal.SIGKILL)
        last = [*map(int, writer.stdout.read().split()), looks[-1]]
    result = dvpo("ledger", "demo")
    assert result.exit_code == 0, result.output
    assert max(last) <= json.loads(dvpo("ledger", "demo", "--json").stdout)["last_step"] <= max(last) + 1
    assert (folder / "ledger.sqlite-wal").exists()  # left as the writer left it
