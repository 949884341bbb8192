"""Questions and verifiers of the real reasoning-gym."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.rewards.function import build_reward
from rollout.tasks import TASKS
from rollout.tasks.base import Example, Task
from rollout.trajectory import FinishReason, Prompt, Trajectory

SUMS = {"dataset": "chain_sum", "size": 20, "seed": 1, "options": {"min_terms": 2, "max_terms": 2, "max_digits": 1}}
TEST = {**SUMS, "size": 10, "seed": 2}


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")


def task(train: dict[str, Any] = SUMS, **options: Any) -> Any:
    spec = ComponentSpec(type="reasoning_gym", train=train, eval={"test": TEST}, **options)
    return build(spec, TASKS, Task, "data.task")


def score(example: Example, response: str, **options: Any) -> float:
    reward = build_reward(ComponentSpec(type="reasoning_gym", **options), "reward.functions.0")
    extra = json.loads(json.dumps(example.extra))  # as it comes back from a file or a service
    prompt = Prompt(
        prompt_id="p", messages=example.messages, token_ids=(), reference=example.reference, task="t", extra=extra
    )
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1,),
        action_mask=(True,),
        rollout_logprobs=(0.0,),
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
        response_text=response,
    )
    found = reward(prompt, trajectory)
    assert isinstance(found, float)
    return found


def test_without_the_library_task_and_reward_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"data\.task: the task 'reasoning_gym': needs the package reasoning-gym: pip"):
        task()
    with pytest.raises(UserError, match=r"the reward 'reasoning_gym': needs the package reasoning-gym"):
        build_reward(ComponentSpec(type="reasoning_gym"), "reward.functions.0")


def test_splits_share_no_question_and_what_is_left_out_is_told() -> None:
    found = task(system_prompt="End with: Answer: NUMBER")
    asked = {split: [e.messages[-1]["content"] for e in found.examples(split)] for split in ("train", "test")}
    assert len(asked["test"]) == 10 and not set(asked["train"]) & set(asked["test"])
    lost = 20 - len(asked["train"])
    assert lost > 0 and found.remarks()[0].startswith(f"data.task.train: {lost} of 20 questions are evaluation")
    assert {e.messages[0]["content"] for e in found.examples("train")} == {"End with: Answer: NUMBER"}


def test_the_librarys_verifier_scores_the_final_answer() -> None:
    for example in task().examples("train"):
        assert score(example, f"I think.\nAnswer: {example.reference}") == 1.0
        assert score(example, "Answer: 12345") < 1.0 and score(example, "no idea") == 0.0


def test_partial_credit_is_kept_or_cut() -> None:
    """Some verifiers give something for a wrong answer in the right form."""
    example = task({"dataset": "countdown", "size": 3, "seed": 1}).examples("train")[0]
    everything = {"answer_pattern": r"(?s)\A(.*)\Z"}
    partial = score(example, "1 + 1", **everything)
    assert 0.0 < partial < 1.0
    assert score(example, "1 + 1", threshold=1.0, **everything) == 0.0


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({**SUMS, "dataset": "chain_sums"}, "data set 'chain_sums' of reasoning-gym: ValueError: .*not registered"),
        ({**SUMS, "options": {"min_term": 2}}, "data set 'chain_sum' of reasoning-gym: TypeError: .*'min_term'"),
        ({**SUMS, "options": {"min_terms": 0}}, "data set 'chain_sum' of reasoning-gym: AssertionError: "),
        ({**TEST, "size": 5}, "every training question is an evaluation question"),
    ],
)
def test_what_it_refuses_is_told(train: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        task(train).examples("train")
