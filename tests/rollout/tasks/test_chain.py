"""The chain task: questions, references, imperfect demonstrations, splits."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rollout.component import ComponentSpec, UserError, build
from rollout.rewards.exact_match import answer_equals
from rollout.tasks import TASKS
from rollout.tasks.base import Task
from rollout.tasks.chain import OOD_SPLITS, Chain, Question, render_steps, solve

SMALL = {"num_train": 300, "num_eval": 60}


def chain(**options: object) -> Chain:
    return Chain(Chain.Config.model_validate({**SMALL, **options}))


def texts(task: Chain, split: str) -> list[str]:
    return [example.messages[0]["content"] for example in task.examples(split)]


def slow_answer(text: str) -> int:
    """The answer by Python's own arithmetic on the written question, read character by character."""
    bare = text.rstrip(".")
    value = int(bare[0])
    for i in range(1, len(bare), 2):
        pair = bare[i : i + 2]
        operator, digit = (pair[0], pair[1]) if pair[1].isdigit() else (pair[1], pair[0])
        value = {"+": value + int(digit), "-": value - int(digit), "~": int(digit) - value}[operator]
    return value % 10


def test_worked_example_of_the_documentation() -> None:
    question = Question.parse("3+4-5+2-6..")
    assert solve(question) == [7, 2, 4, 8]
    assert render_steps(solve(question)) == "7 2 4=8"
    assert solve(Question.parse("3~4")) == [1]
    assert solve(Question.parse("34+5-2+6-..")) == [7, 2, 4, 8]
    assert render_steps([7]) == "7"


STEPS = st.lists(st.tuples(st.sampled_from("+-~"), st.integers(0, 9)), min_size=1, max_size=8).map(tuple)


@given(first=st.integers(0, 9), steps=STEPS, postfix=st.booleans(), filler=st.integers(0, 4))
def test_parse_inverts_text(first: int, steps: tuple[tuple[str, int], ...], postfix: bool, filler: int) -> None:
    question = Question(first, steps, postfix)
    assert Question.parse(question.text + "." * filler) == question
    assert solve(question)[-1] == slow_answer(question.text)


@pytest.mark.parametrize("text", ["", "3", "3+", "+3", "3+-4", "3 + 4", "34+5", "3+4=", "1+2.3"])
def test_parse_refuses_what_is_no_chain(text: str) -> None:
    with pytest.raises(ValueError, match="not a chain"):
        Question.parse(text)


@pytest.mark.parametrize("split", ["train", "test", *OOD_SPLITS, "ood"])
def test_references_equal_plain_arithmetic(split: str) -> None:
    task = chain()
    for example in task.examples(split):
        assert example.reference == str(slow_answer(example.messages[0]["content"]))
        assert len(example.messages[0]["content"]) == 11
        assert set(example.messages[0]["content"]) <= set(task.alphabet())


def test_splits_are_what_they_say() -> None:
    task = chain()
    assert task.splits == ("test", "six_terms", "reversed", "postfix", "ood")
    assert len(task.examples("train")) == 300
    assert [len(task.examples(split)) for split in task.splits] == [60, 60, 60, 60, 180]
    assert not set(texts(task, "train")) & set(texts(task, "test"))
    assert len(set(texts(task, "train"))) == 300
    assert all(sum(map(str.isdigit, text)) == 5 for text in texts(task, "test"))
    assert all(sum(map(str.isdigit, text)) == 6 for text in texts(task, "six_terms"))
    assert all("~" in text and "-" not in text for text in texts(task, "reversed"))
    assert all(text.rstrip(".")[-1] in "+-" for text in texts(task, "postfix"))
    assert not any("~" in text for text in texts(task, "train"))
    ids = [example.example_id for split in ("train", "test", "ood") for example in task.examples(split)]
    assert len(set(ids)) == len(ids)
    first_third = Counter(example.example_id.rsplit("-", 1)[0] for example in task.examples("ood")[:60])
    assert first_third == dict.fromkeys(OOD_SPLITS, 20)


def test_the_seed_fixes_everything() -> None:
    one, two, other = chain(seed=1), chain(seed=1), chain(seed=2)
    assert [list(one.examples(s)) for s in one.splits] == [list(two.examples(s)) for s in two.splits]
    assert one.wrong_facts == two.wrong_facts
    assert texts(one, "train") != texts(other, "train")
    assert one.wrong_facts != other.wrong_facts
    assert texts(chain(), "train")[0] == "2-5+9-3+0.."


def test_the_default_task_is_the_one_that_the_demo_was_measured_on() -> None:
    """docs/demo.md has figures; other questions or facts would make them void."""
    task, rng, digest = Chain(Chain.Config()), random.Random(0), hashlib.sha256()
    for split in ("train", *task.splits):
        for example in task.examples(split):
            digest.update(f"{example.example_id} {example.messages[0]['content']} {example.reference}\n".encode())
    for example in task.warmstart_examples(2000, rng):
        digest.update(f"{example.messages[0]['content']} {task.demonstration(example, rng)}\n".encode())
    assert digest.hexdigest() == "ddd17aba929b25db8237309fcda65ef2c0a1dae1a3e0abcde2cf0e24bf1bb9a8"


def test_shares_of_wrong_facts() -> None:
    task = chain(
        imperfection={"wrong_facts_frac": 0.2, "wrong_prob_low": 0.6, "wrong_prob_high": 0.7, "slip_prob": 0.1}
    )
    assert len(task.wrong_facts) == 200
    bad = [prob for prob, _ in task.wrong_facts.values() if prob >= 0.6]
    good = [prob for prob, _ in task.wrong_facts.values() if prob < 0.6]
    assert len(bad) == 40 and max(bad) <= 0.7
    assert max(good) <= 0.1
    for (operator, left, right), (_, shown) in task.wrong_facts.items():
        assert shown != (left + right if operator == "+" else left - right) % 10


def test_demonstrations_are_wrong_as_often_as_the_facts_say() -> None:
    """One-step demonstrations of every fact, 400 times each: within 4 sigma of the fact's own probability."""
    task, rng = chain(), random.Random(0)
    for (operator, left, right), (prob, wrong) in list(task.wrong_facts.items())[::7]:
        example = task._example("x", Question(left, ((operator, right),)))
        shown = Counter(task.demonstration(example, rng) for _ in range(400))
        assert set(shown) <= {str(wrong), example.reference}
        assert abs(shown[str(wrong)] / 400 - prob) <= 4 * (prob * (1 - prob) / 400) ** 0.5
        reverse = task._example("x", Question(right, (("~", left),)))
        if operator == "-":
            assert task.demonstration(reverse, rng) in {str(wrong), example.reference}


def test_perfect_demonstrations_are_right_and_errors_are_carried_on() -> None:
    none = {"wrong_facts_frac": 0.0, "slip_prob": 0.0}
    task, rng = chain(imperfection=none), random.Random(0)
    for split in ("train", *task.splits):
        for example in task.examples(split)[:40]:
            assert answer_equals(task.demonstration(example, rng), str(example.reference))
    always = {"wrong_facts_frac": 1.0, "wrong_prob_low": 1.0, "wrong_prob_high": 1.0}
    wrong = chain(imperfection=always)
    example = wrong.examples("train")[0]
    value, values = Question.parse(example.messages[0]["content"]).first, []
    for operator, digit in Question.parse(example.messages[0]["content"]).steps:
        value = wrong.wrong_facts[operator, value, digit][1]
        values.append(value)
    assert wrong.demonstration(example, rng) == render_steps(values)


def test_warmstart_questions_leave_the_evaluation_splits_out() -> None:
    task = chain(num_terms=3, num_train=100, num_eval=400)
    found = task.warmstart_examples(3000, random.Random(0))
    held_out = {text for split in task.splits for text in texts(task, split)}
    shown = [example.messages[0]["content"] for example in found]
    assert len(found) == 3000 and not held_out & set(shown)
    lengths = Counter(sum(map(str.isdigit, text)) for text in shown)
    assert set(lengths) == {2, 3, 4}
    assert sum("~" in text for text in shown) > 200


def test_options_that_cannot_work() -> None:
    with pytest.raises(UserError, match=r"no split 'tset'; did you mean 'test'\?"):
        chain().examples("tset")
    with pytest.raises(UserError, match=r"t\.imperfection: wrong_prob_low 0\.9 is above wrong_prob_high 0\.7"):
        build(ComponentSpec(type="chain", imperfection={"wrong_prob_low": 0.9}), TASKS, Task, "t")
    with pytest.raises(ValidationError, match="more than half of the 200 questions with num_terms = 2"):
        chain(num_terms=2, num_train=100, num_eval=3)
