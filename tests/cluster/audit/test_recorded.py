"""``dvpo audit RUN``: rates from the scores in a run's ledger, or why there are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from actors.ledger.ledger import Ledger
from actors.ledger.samples import SampleScore
from cluster.audit.recorded import audit_run
from cluster.cli import main
from rollout.component import UserError

NUM_PROMPTS, GROUP = 150, 12


def make_run(folder: Path, rates: tuple[float, float], persistent: float, gold_share: float, epochs: int = 2) -> Path:
    """Answers 0 to 3 of each prompt, of which answer 0 is right; ``persistent`` verdicts are wrong for good."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    wrong_for_good = rng.random((NUM_PROMPTS, 4)) < persistent
    ledger = Ledger(folder / "ledger.sqlite", num_prompts=NUM_PROMPTS, samples_per_prompt=GROUP)
    for index in range(epochs * NUM_PROMPTS):
        epoch, prompt = divmod(index, NUM_PROMPTS)
        first = epoch * GROUP
        ledger.admit(index, f"p-{prompt}", epoch, first, GROUP)
        for sample in range(first, first + GROUP):
            answer = int(rng.integers(4))
            right = answer == 0
            says_one = right != wrong_for_good[prompt, answer]
            observed = rng.random() < (1.0 - rates[1] if says_one else rates[0])
            gold = float(right) if rng.random() < gold_share else None
            score = SampleScore(observed=float(observed), answer_key=str(answer), gold=gold)
            ledger.ready(f"p-{prompt}#{sample}", 3, score)
        ledger.commit_step(index + 1, [f"p-{prompt}#{sample}" for sample in range(first, first + GROUP)])
    ledger.close()
    return folder


def test_both_kinds_of_error_are_told_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (0.2, 0.15), persistent=0.3, gold_share=0.4)
    found = CliRunner().invoke(main, ["audit", str(run), "--output", str(tmp_path / "report.json")])
    assert found.exit_code == 0, found.output
    first, second, *rest = found.output.splitlines()
    assert re.fullmatch(r"3,600 scores of (59\d|600) answers to 150 prompts", first)
    assert re.fullmatch(r"5\d\d of them were scored 3 times or more; 5\d\d true scores known", second)
    assert [line.split(":")[0] for line in rest[:3]] == [
        "errors drawn anew at each score",
        "errors that repeat with the answer",
        "both together",
    ]
    assert any("stay wrong however often" in line for line in rest)
    written = json.loads((tmp_path / "report.json").read_text())
    rates = written["rates"]
    for name, truth in (("rho_plus", 0.2), ("rho_minus", 0.15), ("pi_plus", 0.3), ("pi_minus", 0.3)):
        assert rates[name]["low"] - 0.02 < truth < rates[name]["high"] + 0.02, name
    assert written["advice"]


def test_without_true_scores_only_what_is_drawn_anew_is_known_and_that_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (0.2, 0.15), persistent=0.0, gold_share=0.0)
    report = audit_run(run)
    assert report.rates.rho_plus is not None and report.rates.rho_plus.holds(0.2)
    assert report.rates.pi_plus is None
    shown = "\n".join(report.lines())
    assert "taken for granted" in shown
    assert "set reward.gold, and gold_share" in shown
    assert "repeat with the answer: false" not in shown


def test_one_score_an_answer_tells_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.sqlite", num_prompts=NUM_PROMPTS, samples_per_prompt=2)
    for index in range(NUM_PROMPTS):
        ledger.admit(index, f"p-{index}", 0, 0, 2)
        for sample in range(2):
            ledger.ready(f"p-{index}#{sample}", 3, SampleScore(observed=float(sample)))
    ledger.close()
    assert audit_run(folder).lines()[2:] == [
        "not known: transient rates: 0 cells were scored 3 times or more, it takes at least 30"
    ]


@pytest.mark.parametrize(
    ("score", "text"), [(None, "has no scores"), (0.5, "2 scores are neither 0 nor 1")], ids=["none", "others"]
)
def test_what_cannot_be_audited_is_told(tmp_path: Path, score: float | None, text: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ledger = Ledger(folder / "ledger.sqlite", num_prompts=1, samples_per_prompt=2)
    ledger.admit(0, "p-0", 0, 0, 2)
    for sample in range(2):
        ledger.ready(f"p-0#{sample}", 3, SampleScore(observed=score))
    ledger.close()
    with pytest.raises(UserError, match=text):
        audit_run(folder)


def test_options_of_the_other_kind_and_folders_without_a_ledger_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (0.1, 0.1), 0.0, 0.0, epochs=1)
    refused = [
        (["audit", str(run), "--gold", "labels.jsonl"], "are for a CONFIG"),
        (["audit", str(tmp_path)], "has no ledger.sqlite"),
        (["audit", "configs/demo.yaml", "--exclusive"], "--exclusive: is for a RUN"),
    ]
    for arguments, text in refused:
        found = CliRunner().invoke(main, arguments)
        assert found.exit_code == 2, found.output
        assert text in found.output
