"""References that a reward cannot use: who is asked about what, what stops a run, warnings, and what is left out."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError
from rollout.config import RewardConfig
from rollout.data.unusable import Draws, objecting_rewards, settle_unusable
from rollout.tasks.dataset import Dataset

NUMBER: dict[str, Any] = {"type": "numeric"}
LETTER: dict[str, Any] = {"type": "multiple_choice"}
TEXT: dict[str, Any] = {"type": "exact_match"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dataset(train: list[str | None], test: list[str | None], **options: Any) -> Dataset:
    for name, answers in (("train", train), ("test", test)):
        rows = [{"prompt": f"{name} {i}"} | ({} if a is None else {"answer": a}) for i, a in enumerate(answers)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"train": "train.jsonl", "eval": {"test": "test.jsonl"}} | options
    return Dataset(Dataset.Config.model_validate(config))


def settle(task: Dataset, *functions: dict[str, Any], **options: Any) -> list[str]:
    size, steps = options.pop("prompts_per_step", 10), options.pop("num_steps", 1)
    draws = Draws(seed=0, shuffle=False, prompts_per_step=size, num_steps=steps)
    config = RewardConfig.model_validate({"functions": functions, **options})
    specs = {f"reward.functions.{i}": spec for i, spec in enumerate(config.functions)}
    specs |= {f"reward.gold.{i}": spec for i, spec in enumerate(config.gold)}
    return settle_unusable(task, config, objecting_rewards(specs), "dataset", draws)


def refused(task: Dataset, *functions: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        settle(task, *functions, **options)
    return str(caught.value)


def test_nothing_to_object_to() -> None:
    assert settle(dataset(["1", "2"], ["3"]), NUMBER) == []
    assert settle(dataset(["1 km", "B"], ["x"]), {"type": "response_format", "pattern": ".*"}) == []
    assert settle(dataset(["1 km", "B"], ["x"]), {"type": "remote", "url": "http://127.0.0.1:1/"}) == []


@pytest.mark.parametrize(
    ("reward", "answers", "reason"),
    [
        (NUMBER, ["1 km", "2 km"], "the reference of prompt 'train.jsonl:1' is not a number: '1 km'"),
        (LETTER, ["(A)", "(B)"], "the reference of prompt 'train.jsonl:1' is '(A)', not one of ABCD"),
        (TEXT, ["x=1", "x=2"], "the reference is 'x=1', and what answer_pattern finds holds neither '=' nor a line br"),
        (TEXT, [None, None], "prompt 'train.jsonl:1' has no reference answer to compare with"),
        ({**TEXT, "answer_pattern": "([0-9]+)$"}, ["a", "b"], "the reference is 'a', and what answer_pattern finds is"),
    ],
)
def test_a_reward_that_can_use_no_question_stops_everything(reward: Any, answers: Any, reason: str) -> None:
    good = {"numeric": "1", "multiple_choice": "A", "exact_match": "1"}[reward["type"]]
    shown = refused(dataset(answers, [good]), reward)
    assert shown.startswith(
        f"reward.functions.0: cannot use any of the 2 questions of split 'train': train.jsonl:1: {reason}"
    )
    # As much for what is only measured, and whatever may be rejected: these are not two bad rows.
    shown = refused(dataset([good], answers), reward)
    assert shown.startswith("reward.functions.0: cannot use any of the 2 questions of split 'test': test.jsonl:1: ")
    some = dataset([*answers], [good], on_bad_row="reject", rejects="bad.json", max_reject_frac=1.0)
    assert "cannot use any of the 2" in refused(some, reward)
    assert some.remarks() == [] or "no 'answer'" in some.remarks()[0]


def test_some_are_a_warning_with_their_places() -> None:
    task = dataset([*map(str, range(95)), "1 m", "2 m", "3 m", "4 m", "5 m"], ["7", "8 m"])
    train, test = settle(task, {"type": "response_format", "pattern": ".*"}, NUMBER)
    assert train == (
        "reward.functions.1: cannot use 5 of the 100 questions of split 'train': "
        "train.jsonl:96: the reference of prompt 'train.jsonl:96' is not a number: '1 m'; "
        "train.jsonl:97: the reference of prompt 'train.jsonl:97' is not a number: '2 m'; "
        "train.jsonl:98: the reference of prompt 'train.jsonl:98' is not a number: '3 m'; ..."
    )
    assert test.startswith("reward.functions.1: cannot use 1 of the 2 questions of split 'test': test.jsonl:2: ")


ROWS = ["1"] * 6 + ["km"] * 2 + ["1"] * 12
"""The seventh and the eighth of twenty."""


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"prompts_per_step": 20}, None),  # 2 of 20
        ({"prompts_per_step": 10}, None),  # 2 of the first 10
        ({"prompts_per_step": 9}, 1),  # 2 of the first 9, and .2 of 9 is 1.8
        ({"prompts_per_step": 9, "max_error_frac": 0.25}, None),
        ({"prompts_per_step": 3, "num_steps": 2}, None),  # the first 6
        ({"prompts_per_step": 3, "num_steps": 3}, 3),
        ({"prompts_per_step": 3, "num_steps": 3, "max_error_frac": 1.0}, None),
        ({"prompts_per_step": 6, "num_steps": 9}, 2),
        # 18 good ones an epoch: the second one begins in the third step, whose nine have the bad ones in them again.
        ({"prompts_per_step": 9, "num_steps": 9, "max_error_frac": 0.4, "error_reward": -1.0}, None),
    ],
)
def test_more_failures_in_a_step_than_are_allowed_are_told_before_the_run(
    options: dict[str, Any], step: int | None
) -> None:
    task = dataset([*ROWS], ["1"])
    if step is None:
        assert len(settle(task, NUMBER, **options)) == 1
        return
    shown = refused(task, NUMBER, **options)
    assert shown.startswith("reward.functions.0: cannot use 2 of the 20 questions of split 'train': train.jsonl:7: ")
    assert f". The run would stop in step {step}, where it fails on " in shown
    assert "reward.max_error_frac = " in shown


def test_the_steps_are_those_of_the_run() -> None:
    """The order is that of the training prompts, shuffled anew in every epoch."""
    from rollout.data.prompt_source import PromptSource
    from rollout.trajectory import Prompt

    prompts = [Prompt(prompt_id=str(i), messages=(), token_ids=(), reference=None, task="t") for i in range(7)]
    for shuffle in (False, True):
        source = PromptSource(prompts, 3, shuffle)
        draws = Draws(seed=3, shuffle=shuffle, prompts_per_step=2, num_steps=2)
        ahead = [prompts[position].prompt_id for position in islice(draws.order(7), 30)]
        assert ahead == [source.at(index)[1].prompt_id for index in range(30)]


def test_wrong_answers_that_only_score_zero_do_not_count_as_failures() -> None:
    task = dataset(["1", "x=2", "x=3"], ["1"])
    (warning,) = settle(task, TEXT)
    assert warning.startswith("reward.functions.0: cannot use 2 of the 3 questions of split 'train': train.jsonl:2: ")


def test_answers_that_are_not_there_are_for_the_data_to_tell_until_the_run_would_stop() -> None:
    task = dataset([*["1"] * 9, None], ["1"])
    assert settle(task, NUMBER) == []
    assert "1 of 10 questions have no 'answer'" in task.remarks()[0]
    shown = refused(dataset([*["1"] * 7, None, None, "km"], ["1"]), NUMBER)
    assert "cannot use 3 of the 10" in shown and "The run would stop in step 1" in shown


def test_rows_may_be_rejected_with_the_reason() -> None:
    task = dataset([*map(str, range(30)), "1 km"], ["7"], on_bad_row="reject", rejects="bad.json")
    assert settle(task, NUMBER) == []
    assert [example.reference for example in task.examples("train")] == [*map(str, range(30))]
    (row,) = map(json.loads, Path("bad.json").read_text().splitlines())
    assert (row["file"], row["number"], row["row"]["answer"]) == ("train.jsonl", 31, "1 km")
    assert row["reason"] == "reward.functions.0: the reference of prompt 'train.jsonl:31' is not a number: '1 km'"
    many = dataset([*map(str, range(8)), "1 km", "2 km"], ["7"], on_bad_row="reject", rejects="bad.json")
    assert "2 of 10 rows of split 'train' are rejected" in refused(many, NUMBER)


def test_gold_scores_evaluation_and_training_goes_on_without_it() -> None:
    form = {"type": "response_format", "pattern": ".*"}
    (warning,) = settle(dataset(["1 km", "2 km"], ["7"]), form, gold=[NUMBER])
    assert warning.startswith("reward.gold.0: cannot use any of the 2 questions of split 'train': ")
    assert "reward.gold.0: cannot use any of the 1 questions of split 'test'" in refused(
        dataset(["1", "2"], ["7 km"]), form, gold=[NUMBER]
    )
    # What training sees is not asked about what only gold scores.
    assert settle(dataset(["1", "2"], ["B"]), NUMBER, gold=[LETTER])[0].startswith("reward.gold.0: cannot use any")


def test_votes_train_without_answers() -> None:
    labels = {"pseudo_labels": {"min_share": 0.5}}
    assert settle(dataset([None, None], ["7"]), NUMBER, **labels) == []
    (warning,) = settle(dataset([None, "7 km"], ["7"]), NUMBER, **labels)
    assert warning.startswith("reward.functions.0: cannot use ")
    assert "split 'test'" in refused(dataset([None], ["7 km"]), NUMBER, **labels)


def test_rewards_of_the_users_own_may_object_and_others_are_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_objections.py").write_text(
        "from rollout.rewards.base import Reward\n"
        "class Short(Reward):\n"
        "    def unusable(self, prompt):\n"
        "        return None if len(prompt.messages[-1]['content']) < 8 else f'asks for {len(prompt.reference)}'\n"
        "class Costly(Reward):\n"
        "    def __init__(self, config):\n        raise RuntimeError('made where it is not needed')\n"
        "def score(prompt, trajectory):\n    return 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = [{"type": f"own_objections:{name}"} for name in ("Costly", "score", "Short")]
    task = dataset([str(i) for i in range(11)], ["1"])
    assert settle(task, *own) == [
        "reward.functions.2: cannot use 1 of the 11 questions of split 'train': train.jsonl:11: asks for 2"
    ]


def test_every_reward_is_known_by_its_place() -> None:
    specs = {f"reward.functions.{i}": ComponentSpec.model_validate(s) for i, s in enumerate((LETTER, NUMBER))}
    assert list(objecting_rewards(specs)) == ["reward.functions.0", "reward.functions.1"]


def test_a_huge_answer_is_quoted_by_its_beginning() -> None:
    shown = refused(dataset(["7 km " * 200_000, "8 km"], ["3"]), NUMBER)
    assert "train.jsonl:1: the reference of prompt 'train.jsonl:1' is not a number: '7 km 7 km" in shown
    assert "…" in shown and len(shown) < 2000
