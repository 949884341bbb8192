"""Worked examples before every question."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.tasks.test_dataset import dataset, refusal, write_jsonl

SHOTS = (
    {"prompt": "1 + 1?", "answer": "2", "response": "One more than 1 is 2.\nAnswer: 2"},
    {"messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "2 + 2?"}], "answer": 4},
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl("train.jsonl", {"prompt": "3 + 3?", "answer": 6}, {"prompt": "1 + 1?", "answer": 2})
    write_jsonl("test.jsonl", {"prompt": "4 + 4?", "answer": 8})
    write_jsonl("shots.jsonl", *SHOTS)


def test_they_stand_between_the_system_message_and_each_question() -> None:
    found = dataset(few_shot="shots.jsonl", system_prompt="Add.")
    turns = [("user", "1 + 1?"), ("assistant", str(SHOTS[0]["response"])), ("user", "2 + 2?"), ("assistant", "4")]
    for split, question in (("train", "3 + 3?"), ("test", "4 + 4?")):
        messages = [(m["role"], m["content"]) for m in found.examples(split)[0].messages]
        assert messages == [("system", "Add."), *turns, ("user", question)]
    assert [
        (m["role"], m["content"]) for m in dataset(few_shot="shots.jsonl").examples("test")[0].messages[:4]
    ] == turns


def test_a_question_that_is_one_of_them_is_told() -> None:
    found = dataset(few_shot="shots.jsonl")
    found.examples("train")
    (line,) = found.remarks()
    assert line.startswith("data.task.few_shot: 1 of 2 questions of split 'train' are among the worked examples")
    assert line.endswith("the first is train.jsonl:2")


def test_what_is_wrong_with_them_is_told_with_its_place() -> None:
    write_jsonl("bad.jsonl", {"prompt": "1 + 1?"}, {"answer": 2})
    told = refusal(few_shot=["bad.jsonl", "none.jsonl"])
    assert "bad.jsonl:1: no column 'response' or 'answer'" in told and "bad.jsonl:2: no column 'prompt'" in told
    assert "data.task.few_shot.1: none.jsonl: no such file" in told
