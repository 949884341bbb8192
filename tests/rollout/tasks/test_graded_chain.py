"""Arithmetic of graded difficulty: a split for each difficulty, and nothing of it in training."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from pydantic import ValidationError

from rollout.component import ComponentSpec, UserError, build
from rollout.tasks import TASKS
from rollout.tasks.base import Task
from rollout.tasks.chain import Chain, Question, solve
from rollout.tasks.graded_chain import GradedChain


def graded(**options: object) -> GradedChain:
    return GradedChain(GradedChain.Config.model_validate({"num_train": 600, "num_eval": 90, **options}))


def levels(task: Task, split: str) -> Counter[int]:
    """Number of terms -> questions."""
    return Counter(sum(map(str.isdigit, example.messages[0]["content"])) for example in task.examples(split))


def test_each_difficulty_has_a_split() -> None:
    task = graded()
    assert isinstance(build(ComponentSpec(type="math"), TASKS, Task, "t"), GradedChain)
    assert task.splits == ("test", "terms_3", "terms_4", "terms_5", "six_terms", "reversed", "postfix", "ood")
    for terms in (3, 4, 5):
        assert levels(task, f"terms_{terms}") == {terms: 90}
    assert levels(task, "six_terms") == {6: 90}
    assert set(levels(task, "postfix")) == set(levels(task, "reversed")) == {5}
    for split, count in (("train", 600), ("test", 90)):
        found = levels(task, split)
        assert set(found) == {3, 4, 5}
        assert all(abs(number - count / 3) < 4 * (count * 2 / 9) ** 0.5 for number in found.values())
    for example in task.examples("test"):
        assert example.reference == str(solve(Question.parse(example.messages[0]["content"]))[-1])
        assert len(example.messages[0]["content"]) == 11


def test_nothing_held_out_is_trained_on_or_demonstrated() -> None:
    task = graded(num_eval=400)
    held_out = {example.messages[0]["content"] for split in task.splits for example in task.examples(split)}
    assert not held_out & {example.messages[0]["content"] for example in task.examples("train")}
    shown = {example.messages[0]["content"] for example in task.warmstart_examples(4000, random.Random(0))}
    assert not held_out & shown


def test_one_difficulty_is_the_plain_chain_but_for_the_splits() -> None:
    task, plain = graded(min_terms=5), Chain(Chain.Config(num_train=600, num_eval=90))
    assert task.splits[:2] == ("test", "terms_5")
    assert list(task.examples("postfix")) == list(plain.examples("postfix"))
    assert task.wrong_facts == plain.wrong_facts


def test_options_that_cannot_work() -> None:
    with pytest.raises(UserError, match=r"t: min_terms 7 is above num_terms 5"):
        build(ComponentSpec(type="math", min_terms=7), TASKS, Task, "t")
    with pytest.raises(ValidationError, match=r"min_terms = 2, more than half of the 200 there are"):
        graded(min_terms=2)
    with pytest.raises(UserError, match=r"task 'math' has no split 'terms_6'; did you mean 'terms_5'"):
        graded().examples("terms_6")
