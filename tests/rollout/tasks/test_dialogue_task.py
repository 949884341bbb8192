"""The dialogue task: splits, determinism, users' behaviour, demonstrations."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.tasks import TASKS
from rollout.tasks.base import Example, Task
from rollout.tasks.dialogue.clerk import Rule
from rollout.tasks.dialogue.domains import DOMAINS, KINDS
from rollout.tasks.dialogue.script import Script
from rollout.tasks.dialogue.task import MAX_TURNS, Dialogue
from rollout.tasks.dialogue.user import SimulatedUser
from rollout.trajectory import Message, Prompt


def dialogue(**options: Any) -> Dialogue:
    task = build(ComponentSpec.model_validate({"type": "dialogue", **options}), TASKS, Task, "data.task")
    assert isinstance(task, Dialogue)
    return task


@pytest.fixture(scope="module")
def task() -> Dialogue:
    return dialogue(num_train=2000, num_eval=64)


def script_of(example: Example) -> Script:
    """The script, after the way through JSON that a prompt may take."""
    return Script.from_json(json.loads(json.dumps(example.extra["script"])))


def replayed(example: Example, messages: tuple[Message, ...]) -> SimulatedUser:
    """The user after a demonstration, every turn of which must be what the user says."""
    user = SimulatedUser(script_of(example), MAX_TURNS)
    assert [message["role"] for message in messages] == (["assistant", "user"] * MAX_TURNS)[: len(messages)]
    heard = [user.hear(message["content"]) for message in messages[::2]]
    assert heard == [*(message["content"] for message in messages[1::2]), None]
    return user


def test_splits(task: Dialogue) -> None:
    assert task.splits == ("test", "life", "transport", "healthcare", "social", "finance", "ood")
    assert {split: len(task.examples(split)) for split in ("train", *task.splits)} == {
        "train": 2000,
        "test": 256,
        "ood": 64,
        **dict.fromkeys(DOMAINS, 64),
    }
    assert Counter(script_of(e).domain for e in task.examples("train")) == dict.fromkeys(task.in_domain, 500)
    assert Counter(script_of(e).domain for e in task.examples("test")[:40]) == dict.fromkeys(task.in_domain, 10)
    assert task.examples("ood") == task.examples("finance")
    for domain in DOMAINS:
        assert {script_of(example).domain for example in task.examples(domain)} == {domain}
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        task.examples("tset")


def test_no_user_comes_twice(task: Dialogue) -> None:
    everyone = [example for split in ("train", *DOMAINS) for example in task.examples(split)]
    scripts = [json.dumps(example.extra["script"], sort_keys=True) for example in everyone]
    assert len(scripts) == len(set(scripts))
    assert len({example.example_id for example in everyone}) == len(everyone)


def test_the_seed_fixes_everything(task: Dialogue) -> None:
    again, other = dialogue(num_train=2000, num_eval=64), dialogue(num_train=2000, num_eval=64, seed=1)
    for split in ("train", *task.splits):
        assert again.examples(split) == task.examples(split) != other.examples(split)
    assert again.mistakes == task.mistakes != other.mistakes
    example = task.examples("train")[0]
    assert task.conversation(example, random.Random(4)) == again.conversation(example, random.Random(4))


@pytest.mark.parametrize("held_out", DOMAINS)
def test_the_held_out_domain_is_not_trained_on(held_out: str) -> None:
    task = dialogue(num_train=101, num_eval=8, held_out=held_out)
    counts = Counter(script_of(example).domain for example in task.examples("train"))
    assert held_out not in counts and sorted(counts.values()) == [25, 25, 25, 26]
    assert task.examples("ood") == task.examples(held_out)
    shown = Counter(script_of(e).domain == held_out for e in task.warmstart_examples(4000, random.Random(0)))
    assert 300 < shown[True] < 500


def test_behaviours_come_as_often_as_configured() -> None:
    probs = {"give_prob": 0.4, "withhold_prob": 0.3, "correct_prob": 0.2, "change_prob": 0.1}
    scripts = [script_of(e) for e in dialogue(num_train=4000, num_eval=4, user=probs).examples("train")]
    num_asked = sum(len(script.required) for script in scripts)
    assert sum(s.given for s in scripts) / 4000 == pytest.approx(0.4, abs=0.03)
    assert sum(sum(s.withheld) for s in scripts) / num_asked == pytest.approx(0.3, abs=0.03)
    assert sum(sum(map(bool, s.slips)) for s in scripts) / num_asked == pytest.approx(0.2, abs=0.03)
    assert sum(s.change is not None for s in scripts) / 4000 == pytest.approx(0.1, abs=0.03)
    for script in scripts:
        assert not (script.given and (script.withheld[0] or script.slips[0]))
        assert all(slip != value for slip, value in zip(script.slips, script.values, strict=True))
        assert (script.final_values == script.values) == (script.change is None)


def test_too_few_different_users_are_an_error() -> None:
    easy = dict.fromkeys(("give_prob", "withhold_prob", "correct_prob", "change_prob"), 0.0)
    with pytest.raises(UserError, match=r"only about 2\d\d different users in domain 'life'; lower num_train"):
        dialogue(user=easy).examples("test")


def test_the_environment_is_the_script_s_user(task: Dialogue) -> None:
    example = task.examples("social")[3]
    prompt = Prompt(
        prompt_id=example.example_id,
        messages=example.messages,
        token_ids=(1,),
        reference=example.reference,
        task="dialogue",
        extra=example.extra,
    )
    user = task.make_environment(prompt)
    assert isinstance(user, SimulatedUser) and user.script == script_of(example)
    assert example.messages == ({"role": "user", "content": user.script.first_message},)
    assert example.reference == " ".join(user.script.final_record)


class TestDemonstrations:
    def test_without_imperfection_they_complete_every_task(self) -> None:
        task = dialogue(num_train=40, num_eval=8, imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
        rng = random.Random(0)
        for example in task.warmstart_examples(600, rng):
            user = replayed(example, task.conversation(example, rng))
            assert user.outcome().metrics == {"tcr": 1.0, "acr": 1.0, "gcr": 1.0}

    def test_they_are_what_the_user_says_and_about_half_are_right(self, task: Dialogue) -> None:
        rng, known = random.Random(0), set(task.alphabet())
        outcomes = []
        for example in task.warmstart_examples(2000, rng):
            messages = task.conversation(example, rng)
            outcomes.append(replayed(example, messages).outcome().metrics)
            assert all(set(message["content"]) <= known for message in (*example.messages, *messages))
        assert 0.4 < sum(metrics["tcr"] for metrics in outcomes) / 2000 < 0.6
        assert 0.85 < sum(metrics["acr"] for metrics in outcomes) / 2000 < 0.99

    def test_mistakes_are_a_share_of_all_facts(self, task: Dialogue) -> None:
        num_words = sum(len(kind.codes) for kind in KINDS)
        assert len(task.mistakes) == num_words + len(Rule) * 3 * len(DOMAINS)
        wrong = [prob for prob, _ in task.mistakes.values() if prob >= 0.55]
        assert len(wrong) == round(0.2 * len(task.mistakes)) and max(wrong) <= 0.7
        assert all(prob <= 0.05 for prob, _ in task.mistakes.values() if prob < 0.55)
        for kind in KINDS:
            for word, code in kind.codes.items():
                assert task.mistakes[kind.name, word, ""][1] in set(kind.codes.values()) - {code}

    def test_evaluation_users_are_not_among_them(self) -> None:
        easy = {"give_prob": 0.5, "withhold_prob": 0.0, "correct_prob": 0.0, "change_prob": 0.0}
        task = dialogue(num_train=40, num_eval=200, user=easy)
        held_out = {json.dumps(e.extra["script"]) for name in DOMAINS for e in task.examples(name)}
        shown = {json.dumps(e.extra["script"]) for e in task.warmstart_examples(3000, random.Random(0))}
        assert len(shown) > 500 and not shown & held_out
