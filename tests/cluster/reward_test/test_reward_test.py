"""``dvpo reward test``: confusion, rates, disagreements and slow calls of a reward on labelled lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from rollout.audit.intervals import clopper_pearson

Dvpo = Callable[..., Result]
SLOW = """
import time

from rollout.rewards.base import Abstain

def slow(prompt, trajectory):
    if trajectory.response_text == "wait":
        time.sleep(0.2)
    return 1.0

def picky(prompt, trajectory):
    if trajectory.response_text == "boom":
        raise KeyError("k")
    if trajectory.response_text == "pass":
        raise Abstain("no opinion")
    return float(prompt.extra["level"] > 1)
"""


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def sums(run_file: Path) -> Path:
    """Six lines for ``exact_match``: one wrong answer is called right, one right one wrong."""
    rows: list[dict[str, Any]] = [
        {"response": "3+4=7", "reference": "7", "label": True},
        {"response": "3+4=7", "reference": "7", "expected": 1},
        {"response": "3+4=8", "reference": "7", "label": False},
        {"response": "no idea", "reference": "7", "expected": [0, "no_answer"]},
        {"response": "x" * 100 + "=8", "reference": "8", "label": 0},
        {"response": "seven, so 8=", "reference": "7", "label": True},
    ]
    return write(run_file.parent / "lines.jsonl", rows)


def test_confusion_rates_and_disagreements(run_file: Path, sums: Path, dvpo: Dvpo) -> None:
    result = dvpo("reward", "test", run_file, sums)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"6 lines of {sums}; reward.functions: exact_match; paid from 0.5"
    assert lines[2].split() == ["label", "right", "2", "1"]
    assert lines[3].split() == ["label", "wrong", "1", "2"]
    assert f"false positive rate: {clopper_pearson(1, 3)} of 3" in lines
    assert f"accuracy: {clopper_pearson(4, 6)} of 6" in lines
    assert "disagreements: 2" in lines
    (wrong,) = [line for line in lines if f"{sums}:5:" in line and "label" in line]
    assert "label wrong, score 1; read '8'; reference '8'; response '…xxx" in wrong
    assert len(wrong) < 250
    assert [line.rpartition(":")[2] for line in lines[lines.index("slowest calls:") + 1 :]] != []


def test_json_has_everything(run_file: Path, sums: Path, dvpo: Dvpo) -> None:
    found = json.loads(dvpo("reward", "test", run_file, sums, "--json", "--show", "0").output)
    assert found["confusion"] == {"right_paid": 2, "right_not_paid": 1, "wrong_paid": 1, "wrong_not_paid": 2}
    assert found["rates"]["false_negative_rate"]["value"] == pytest.approx(1 / 3)
    assert [(one["place"], one["label"], one["score"], one["read"]) for one in found["disagreements"]] == [
        (f"{sums}:5", False, 1.0, "8"),
        (f"{sums}:6", True, 0.0, ""),
    ]
    assert len(found["slowest"]) == 5


@pytest.mark.parametrize(("allowed", "status"), [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_too_many_disagreements_are_a_failure(
    allowed: int, status: int, run_file: Path, sums: Path, dvpo: Dvpo
) -> None:
    assert dvpo("reward", "test", run_file, sums, "--max-disagreements", allowed).exit_code == status


def test_slow_calls_abstentions_and_errors(run_file: Path, dvpo: Dvpo) -> None:
    (run_file.parent / "rewards_of_test.py").write_text(SLOW)
    lines = write(run_file.parent / "lines.jsonl", [{"response": text, "label": 1} for text in ("a", "wait", "b")])
    slow = ["--set", 'reward.functions.0.type="rewards_of_test:slow"']
    found = json.loads(dvpo("reward", "test", run_file, lines, *slow, "--json").output)
    assert found["slowest"][0]["place"] == f"{lines}:2" and found["slowest"][0]["seconds"] >= 0.2
    rows = [{"response": text, "label": text == "a", "level": 2} for text in ("a", "boom", "pass")]
    lines = write(run_file.parent / "more.jsonl", rows)
    picky = ["--set", 'reward.functions.0.type="rewards_of_test:picky"']
    result = dvpo("reward", "test", run_file, lines, *picky, "--max-disagreements", 0)
    assert "not scored: 1 abstained, 1 error" in result.output
    assert "disagreements: 1" in result.output, "a failure is one, an abstention is none"
    assert "error: KeyError: 'k'" in result.output
    assert result.exit_code == 1


def test_sums_of_rewards_thresholds_and_gold(run_file: Path, dvpo: Dvpo) -> None:
    functions = '[{type: exact_match, correct: 2, incorrect: 1}, {type: response_format, pattern: ".*", weight: 0.1}]'
    rows = [{"response": "=7", "reference": "7", "label": 1}, {"response": "=8", "reference": "7", "label": 0}]
    lines = write(run_file.parent / "lines.jsonl", rows)
    flags = ["--set", f"reward.functions={functions}", "--set", "reward.gold=[{type: numeric}]", "--json"]
    at_half = json.loads(dvpo("reward", "test", run_file, lines, *flags).output)
    assert at_half["confusion"]["wrong_paid"] == 1
    assert at_half["disagreements"][0]["read"] == "8 | =8"
    higher = json.loads(dvpo("reward", "test", run_file, lines, *flags, "--threshold", "1.5").output)
    assert higher["confusion"]["wrong_paid"] == 0
    gold = json.loads(dvpo("reward", "test", run_file, lines, *flags, "--gold").output)
    assert gold["rewards"] == {"place": "reward.gold", "types": ["numeric"]}
    assert gold["disagreements"] == []


def test_columns_of_the_data_set(run_file: Path, dvpo: Dvpo) -> None:
    """The reference may stand where the configuration's data set has it, and a response may have been cut."""
    task = "data.task={type: dataset, train: a.jsonl, eval: {test: b.jsonl}, answer_column: solution}"
    rows = [
        {"question": "3+4?", "solution": 7, "response": "3+4=7", "label": True},
        {"solution": "7", "response": "it is 7", "finish_reason": "length", "label": False},
    ]
    lines = write(run_file.parent / "lines.jsonl", rows)
    last = ["--set", "reward.functions=[{type: numeric, source: last_number}]"]
    result = dvpo("reward", "test", run_file, lines, "--set", task, *last, "--max-disagreements", 0)
    assert result.exit_code == 0, result.output


def test_bad_lines_are_named_with_their_place(run_file: Path, dvpo: Dvpo) -> None:
    path = run_file.parent / "lines.jsonl"
    bad = (
        ('{"response": "a"}', "no 'label'; give one"),
        ('{"respons": "a", "label": 1}', "no 'response'; did you mean 'respons'?"),
        ('{"response": "a", "label": 2}', "'label' must be true or 1 if the response is right"),
        ('{"response": "a", "label": "yes"}', "'label' must be true or 1"),
        ('{"response": "a", "label": 1, "expected": 1}', "both 'label' and 'expected'; give one"),
        ('{"response": "a", "expected": [0, 1]}', "'expected' must name right scores or wrong ones, not both"),
        ('{"response": ["a"], "label": 1}', "'response' must be a text"),
        ('{"response": "a", "label": 1, "finish_reason": "cut"}', "'finish_reason' must be stop or length, got 'cut'"),
        ('{"response": "a", "label": 1, "prompt": [1]}', "'prompt' must be a text or a list of"),
        ('{"response": "a", "label": 1, "outcome": 3}', "'outcome' must be {'metrics': {name: number}}"),
        ("[1]", "every line must be one JSON object, got list"),
        ("{", "not valid JSON"),
    )
    path.write_text('{"response": "a", "reference": "b", "label": 1}\n' + "\n".join(line for line, _ in bad) + "\n")
    result = dvpo("reward", "test", run_file, path)
    assert result.exit_code == 2
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(bad)
    for number, ((_, message), error) in enumerate(zip(bad, errors, strict=True), start=2):
        assert error.startswith(f"error: {path}:{number}: {message}"), error


def test_other_mistakes(run_file: Path, sums: Path, dvpo: Dvpo) -> None:
    for arguments, message in (
        (["nowhere.jsonl"], "nowhere.jsonl: no such file"),
        ([sums, "--gold"], "--gold: "),
        ([sums, "--set", "reward.functions.0.type=exact_mach"], "did you mean 'exact_match'?"),
        ([sums, "--set", "reward.functions.0.answer_pattern=("], "reward.functions.0.answer_pattern: not a regular"),
    ):
        result = dvpo("reward", "test", run_file, *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.output and "Traceback" not in result.output
    empty = run_file.parent / "empty.jsonl"
    empty.write_text("\n")
    assert "has no lines; each needs 'response' and 'label'" in dvpo("reward", "test", run_file, empty).output
    many = write(run_file.parent / "many.jsonl", [{"response": "a"}] * 30)
    assert "and 10 more bad lines" in dvpo("reward", "test", run_file, many).output
