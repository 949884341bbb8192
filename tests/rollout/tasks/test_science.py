"""The science task: questions, splits, choices, imperfect demonstrations, and that rewards grade them as meant."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.rewards import REWARDS
from rollout.rewards.answers.numbers import parse_number
from rollout.rewards.base import Reward
from rollout.rewards.exact_match import answer_equals
from rollout.tasks import TASKS
from rollout.tasks.base import Example, Task
from rollout.tasks.science import OOD_SPLITS, TEMPLATES, UNSEEN_TEMPLATES, Science
from rollout.tasks.science_facts import read_table
from rollout.trajectory import FinishReason, Prompt, Trajectory

SMALL = {"num_train": 400, "num_eval": 80}


def science(**options: object) -> Science:
    return Science(Science.Config.model_validate({**SMALL, **options}))


def texts(task: Science, split: str) -> list[str]:
    return [example.messages[0]["content"] for example in task.examples(split)]


def everything(task: Science) -> list[Example]:
    return [example for split in ("train", "test", *OOD_SPLITS) for example in task.examples(split)]


async def grade(kind: str, example: Example, response: str) -> float:
    reward = build(ComponentSpec(type=kind), REWARDS, Reward, "reward")
    prompt = Prompt(
        prompt_id=example.example_id,
        messages=example.messages,
        token_ids=(),
        reference=example.reference,
        task="science",
        extra=example.extra,
    )
    trajectory = Trajectory(
        prompt_id=example.example_id,
        sample_index=0,
        token_ids=(),
        action_mask=(),
        rollout_logprobs=(),
        response_text=response,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return float(await reward(prompt, trajectory))


def test_worked_examples_of_the_documentation() -> None:
    task = science(imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
    stems = {
        template.format(word=stem.word, subject=stem.subject): (stem, template)
        for kind in task.stems.values()
        for stem in kind
        for template in (*TEMPLATES, *UNSEEN_TEMPLATES)
    }

    def shown(text: str, *options: str) -> str:
        example = task._example(*stems[text], options)
        assert example.messages[0]["content"].startswith(text)
        return task.demonstration(example, random.Random(0))

    assert shown("period of Na?") == "=3"
    assert shown("period of Na?", "4", "3", "7", "1") == "=3"
    assert shown("Na: period?") == shown("Na has what period?") == shown("which period has Na?") == "=3"
    assert shown("period of sodium?") == "Na=3"
    assert shown("no.11: group?") == "Na=1"
    assert shown("successor of Na?") == "11 12=Mg"
    assert shown("successor of Na?", "Al", "Mg", "F", "O") == "11 12=Mg"
    assert shown("unit of force: symbol?") == "newton=N"
    assert shown("tell the value for c.") == "=2.998e8"


def test_references_are_the_facts_of_the_files() -> None:
    """One-hop answers looked up in the tables by another way than the task's."""
    tables = [row for topic in ("elements", "units", "constants") for row in read_table(topic)]
    task = science()
    for example in everything(task):
        path, start = example.extra["path"], example.extra["start"]
        if len(path) > 1:
            continue
        answer = example.reference
        column = path[0].partition("_of_")[0]
        rows = [row for row in tables if start.removeprefix("no.") in row.values() and column in row]
        assert answer in {row[column] for row in rows}, example
        assert f"{start}" in example.messages[0]["content"]
        assert column in example.messages[0]["content"]


def test_two_hops_use_the_value_of_the_first() -> None:
    task = science(num_eval=200)
    elements = {row["name"]: row for row in read_table("elements")}
    by_number = {row["number"]: row for row in read_table("elements")}
    seen = Counter[str]()
    for example in task.examples("two_hop"):
        path, start = example.extra["path"], example.extra["start"]
        answer = example.reference
        seen[path[0]] += 1
        if path[0] == "symbol_of_element":
            assert answer == elements[start][path[1]]
        elif path[0] == "symbol_of_number":
            assert answer == by_number[start.removeprefix("no.")][path[1]]
        elif path[0] == "number":
            number = next(row["number"] for row in by_number.values() if row["symbol"] == start)
            assert answer == by_number[str(int(number) + 1)]["symbol"]
        else:
            assert answer == next(row["symbol"] for row in read_table("units") if row["quantity"] == start)
    assert set(seen) == {"symbol_of_element", "symbol_of_number", "number", "unit"}


def test_splits_are_what_they_say() -> None:
    task = science()
    assert task.splits == ("test", "unseen_template", "two_hop", "ood")
    assert [len(task.examples(split)) for split in ("train", *task.splits)] == [400, 80, 80, 80, 160]
    train = set(texts(task, "train"))
    for split in ("test", *OOD_SPLITS):
        assert len(set(texts(task, split))) == 80
        assert not train & set(texts(task, split))
        assert sum(bool(example.extra["options"]) for example in task.examples(split)) == 40
    assert all(text.startswith(("which ", "tell ")) for text in texts(task, "unseen_template"))
    in_domain = [*texts(task, "train"), *texts(task, "test"), *texts(task, "two_hop")]
    assert not [text for text in in_domain if text.startswith(("which ", "tell "))]
    assert {len(example.extra["path"]) for split in ("train", "test") for example in task.examples(split)} == {1}
    assert {len(example.extra["path"]) for example in task.examples("two_hop")} == {2, 3}
    ids = [example.example_id for example in everything(task)]
    assert len(set(ids)) == len(ids)
    ood = Counter(example.example_id.rsplit("-", 1)[0] for example in task.examples("ood")[:40])
    assert ood == dict.fromkeys(OOD_SPLITS, 20)


def test_every_fact_asked_in_test_is_asked_in_training() -> None:
    task = science(num_train=8000, num_eval=200)

    def facts(split: str) -> set[tuple[str, str]]:
        return {(example.extra["path"][0], example.extra["start"]) for example in task.examples(split)}

    assert facts("train") == set(task.facts)
    assert facts("test") <= facts("train")


def test_choices_are_four_with_one_right_and_the_usual_error_among_them() -> None:
    task, places = science(), Counter[int]()
    for example in everything(task):
        options, path = example.extra["options"], example.extra["path"]
        if not options:
            continue
        assert len(set(options)) == len(options) == 4
        assert example.messages[0]["content"].endswith(f" {'/'.join(options)}")
        places[options.index(example.reference)] += 1
        if len(path) == 1:
            assert task.wrong_facts[path[0], example.extra["start"]][1] in options
    assert set(places) == set(range(4))
    assert max(places.values()) < 0.35 * sum(places.values())


async def test_rewards_give_one_to_the_reference_and_nothing_to_anything_else() -> None:
    """``exact_match`` serves all questions, ``numeric`` those with numbers for answers."""
    task = science(num_train=150, num_eval=60)
    kinds = Counter[str]()
    for example in everything(task):
        right, options = str(example.reference), example.extra["options"]
        kind = "exact_match" if parse_number(right) is None else "numeric"
        kinds[kind] += 1
        wrong = [option for option in options if option != right] or ["", "0", f"{right}1", "X"]
        for name in {kind, "exact_match"}:
            assert await grade(name, example, f"x={right}") == 1.0
            assert [await grade(name, example, f"x={answer}") for answer in wrong] == [0.0] * len(wrong)
            assert await grade(name, example, "") == 0.0
    assert min(kinds[kind] for kind in ("exact_match", "numeric")) > 100


def test_the_seed_fixes_everything() -> None:
    one, two, other = science(seed=1), science(seed=1), science(seed=2)
    assert everything(one) == everything(two)
    assert one.wrong_facts == two.wrong_facts
    assert one.warmstart_examples(50, random.Random(3)) == two.warmstart_examples(50, random.Random(3))
    assert texts(one, "train") != texts(other, "train")
    assert one.wrong_facts != other.wrong_facts


def test_demonstrations_are_wrong_as_often_as_the_facts_say() -> None:
    """Within 4 sigma of each fact's own probability, and never anything but the right or the usual wrong value."""
    task, rng = science(num_eval=2), random.Random(0)
    bad = [key for key, (prob, _) in task.wrong_facts.items() if prob >= 0.52]
    assert len(bad) == round(0.45 * len(task.facts))
    for example in [example for example in task.examples("train") if not example.extra["options"]][:40]:
        key = (example.extra["path"][0], example.extra["start"])
        prob, wrong = task.wrong_facts[key]
        assert wrong != task.facts[key]
        shown = Counter(task.demonstration(example, rng) for _ in range(200))
        assert set(shown) <= {f"={wrong}", f"={example.reference}"}
        assert abs(shown[f"={wrong}"] / 200 - prob) <= 4 * (prob * (1 - prob) / 200) ** 0.5


def test_perfect_demonstrations_are_right_and_wrong_ones_are_among_the_choices() -> None:
    perfect = science(imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
    rng = random.Random(0)
    assert all(answer_equals(perfect.demonstration(e, rng), str(e.reference)) for e in everything(perfect))
    always = {"wrong_facts_frac": 1.0, "wrong_prob_low": 1.0, "wrong_prob_high": 1.0}
    wrong = science(imperfection=always)
    for example in everything(wrong):
        response, options = wrong.demonstration(example, rng), example.extra["options"]
        assert not options or response.partition("=")[2] in options
        if len(example.extra["path"]) == 1:
            assert not answer_equals(response, str(example.reference))


def test_warmstart_questions_leave_the_evaluation_splits_out() -> None:
    task = science()
    found = task.warmstart_examples(3000, random.Random(0))
    shown = [example.messages[0]["content"] for example in found]
    assert len(found) == 3000
    assert not {text for split in task.splits for text in texts(task, split)} & set(shown)
    ood = sum(len(e.extra["path"]) > 1 or t.startswith(("which ", "tell ")) for e, t in zip(found, shown, strict=True))
    assert 0.35 < ood / 3000 < 0.45
    only = science(ood_demonstrations_frac=0.0).warmstart_examples(500, random.Random(0))
    assert all(len(example.extra["path"]) == 1 for example in only)
    letters = set(task.alphabet())
    assert set("".join(shown)) <= letters
    assert set("".join(task.demonstration(example, random.Random(1)) for example in found)) <= letters


def test_all_elements_and_single_topics() -> None:
    task = science(topics=["elements"], num_elements=118, choice_frac=1.0)
    assert ("block", "Og") in task.facts
    assert all(example.extra["options"] for example in task.examples("train"))
    units = science(topics=["units"], choice_frac=0.8, num_eval=60)
    assert {path for example in everything(units) for path in example.extra["path"]} == {"unit", "symbol_of_unit"}


def test_options_that_cannot_work() -> None:
    with pytest.raises(UserError, match=r"no split 'tset'; did you mean 'test'\?"):
        science().examples("tset")
    with pytest.raises(UserError, match="make 500 short questions in split 'test', where at most 148 can"):
        science(num_eval=1000).examples("test")
    with pytest.raises(UserError, match=r"make 9000 multiple-choice questions in split 'test', where at most 3552 can"):
        science(num_eval=9000, choice_frac=1.0).examples("test")
    with pytest.raises(UserError, match=r"t\.topics: names a topic twice: units, units"):
        build(ComponentSpec(type="science", topics=["units", "units"]), TASKS, Task, "t")
    with pytest.raises(UserError, match=r"t\.topics: constants alone make no two-hop questions"):
        build(ComponentSpec(type="science", topics=["constants"]), TASKS, Task, "t")
