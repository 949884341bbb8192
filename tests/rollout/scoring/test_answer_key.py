"""One answer, one key; and which true scores training may see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rollout.component import ComponentSpec, UserError
from rollout.config import GoldLabelConfig, RewardConfig
from rollout.scoring.answer_key import question_key
from rollout.scoring.recheck import is_labelled, is_rechecked
from rollout.scoring.record import RewardRecord
from rollout.scoring.service import RewardService
from rollout.trajectory import FinishReason, Outcome, Prompt, Trajectory

MODULE = """
def gold(prompt, trajectory):
    return 1.0

def first_word(prompt, trajectory):
    return (trajectory.response_text.split() or [None])[0]

def broken(prompt, trajectory):
    raise KeyError("k")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answer_keys_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "answer_keys_of_a_test"


async def record_of(config: RewardConfig, text: str, index: int = 0, last_token: int = 2) -> RewardRecord:
    prompt = Prompt(prompt_id="p", messages=(), token_ids=(1,), reference="8", task="t")
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=index,
        token_ids=(1, 5, last_token),
        action_mask=(False, True, True),
        rollout_logprobs=(0.0, -1.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return await RewardService(config, run_seed=5).score(prompt, trajectory)


async def key_of(text: str, last_token: int = 2, **options: object) -> str:
    return (await record_of(RewardConfig.model_validate(options), text, last_token=last_token)).answer_key


@pytest.mark.parametrize(
    ("reward", "same", "other"),
    [
        ("exact_match", ("a = 8", "b =  8"), "a = 9"),
        ("numeric", ("so = 0.50", "x = 1/2"), "x = 1/3"),
        ("multiple_choice", ("The answer is B.", "Answer: (B)"), "Answer: (C)"),
        ("math_verify", (r"Thus \boxed{\frac{1}{2}}.", r"\boxed{\dfrac12}"), r"\boxed{\frac13}"),
    ],
)
async def test_notations_of_one_answer_share_a_key(reward: str, same: tuple[str, str], other: str) -> None:
    if reward == "math_verify":
        pytest.importorskip("math_verify")
    functions = [{"type": reward}]
    one, again = [await key_of(text, token, functions=functions) for token, text in enumerate(same, start=2)]
    assert one == again != ""
    assert await key_of(other, functions=functions) != one


async def test_without_an_answer_the_text_is_the_key(module: str) -> None:
    functions = [{"type": f"{module}:gold"}]  # it reads no answer
    assert await key_of("x", 2, functions=functions) == await key_of("y", 2, functions=functions)
    assert await key_of("x", 2, functions=functions) != await key_of("x", 3, functions=functions)


async def test_all_rewards_must_agree_on_the_answer(module: str) -> None:
    both = [{"type": "exact_match"}, {"type": f"{module}:gold"}]
    assert await key_of("= 8", 2, functions=both) != await key_of("= 8", 3, functions=both)
    numbers = [{"type": "exact_match"}, {"type": "numeric"}]
    assert await key_of("= 8", 2, functions=numbers) == await key_of("= 8", 3, functions=numbers)
    assert await key_of("= 8", 2, functions=numbers) != await key_of("= 8.0", 3, functions=numbers)


async def test_the_key_is_the_user_s_choice(module: str, caplog: pytest.LogCaptureFixture) -> None:
    assert await key_of("= 8", answer_key="none") == ""
    assert await key_of("= 8", 2, answer_key="text") != await key_of("= 8", 3, answer_key="text")
    own = f"{module}:first_word"
    assert await key_of("yes = 8", 2, answer_key=own) == await key_of("yes = 9", 3, answer_key=own) != ""
    assert await key_of("", answer_key=own) == ""
    assert await key_of("= 8", answer_key=f"{module}:broken") == ""
    assert "reward.answer_key failed for prompt p: KeyError('k')" in caplog.text
    with pytest.raises(
        UserError, match=r"reward\.answer_key: module .* has no 'frist_word'; did you mean 'first_word'"
    ):
        await key_of("= 8", answer_key=f"{module}:frist_word")
    with pytest.raises(ValidationError):
        RewardConfig(answer_key="automatic")


async def test_training_sees_the_true_score_of_the_asked_for_share_only(module: str) -> None:
    gold = ComponentSpec(type=f"{module}:gold")
    config = RewardConfig(gold=(gold,), gold_share=0.5, gold_labels=GoldLabelConfig(share=0.2))
    records = [await record_of(config, "= 7", index) for index in range(200)]
    asked = [index for index in range(200) if is_labelled(5, "p", index, 0.2)]
    rechecked = [index for index in range(200) if is_rechecked(5, "p", index, 0.5)]
    assert 20 < len(asked) < 60
    assert 4 < len({*asked} & {*rechecked}) < len(asked) - 4  # one draw does not decide the other
    assert [index for index, record in enumerate(records) if record.gold_label is not None] == asked
    assert {records[index].gold_label for index in asked} == {1.0}
    assert [index for index, record in enumerate(records) if record.clean is not None] == sorted({*asked, *rechecked})
    assert {record.observed for record in records} == {0.0}


async def test_with_injected_noise_the_label_is_the_score_before_it() -> None:
    noise = (ComponentSpec(type="symmetric_flip", p=0.5),)
    config = RewardConfig(noise=noise, gold_labels=GoldLabelConfig(share=1.0))
    records = [await record_of(config, "= 8", index) for index in range(40)]
    assert {record.gold_label for record in records} == {1.0}
    assert {record.observed for record in records} == {0.0, 1.0}


async def test_without_the_opt_in_no_true_score_is_for_training() -> None:
    noise = (ComponentSpec(type="symmetric_flip", p=0.5),)
    record = await record_of(RewardConfig(noise=noise), "= 8")
    assert (record.clean, record.gold_label) == (1.0, None)


def test_labels_that_nothing_could_tell_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"needs reward\.gold"):
        RewardConfig(gold_labels=GoldLabelConfig())


async def test_labels_may_come_early() -> None:
    labels = GoldLabelConfig(share=0.05, first_share=0.5, first_updates=3)
    assert [labels.share_at(version) for version in (0, 2, 3, 50)] == [0.5, 0.5, 0.05, 0.05]
    noise = (ComponentSpec(type="symmetric_flip", p=0.5),)
    early = [await record_of(RewardConfig(noise=noise, gold_labels=labels), "= 8", index) for index in range(60)]
    asked = [index for index in range(60) if is_labelled(5, "p", index, 0.5)]
    assert [index for index, record in enumerate(early) if record.gold_label is not None] == asked
    for wrong in ({"first_share": 0.5}, {"first_updates": 3}):
        with pytest.raises(ValidationError, match="given together"):
            GoldLabelConfig.model_validate(wrong)


def test_a_question_is_all_that_a_reward_sees_of_a_row_but_its_id() -> None:
    def key(prompt_id: str, outcome: Outcome | None = None, **changes: Any) -> str:
        asked: dict[str, Any] = {"messages": ({"role": "user", "content": "1 + 1"},), "reference": "2", "task": "t"}
        prompt = Prompt(prompt_id=prompt_id, token_ids=(1,), **(asked | changes))
        trajectory = Trajectory(
            prompt_id=prompt_id,
            sample_index=0,
            token_ids=(1, 2),
            action_mask=(False, True),
            rollout_logprobs=(0.0, -1.0),
            response_text="2",
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
            outcome=outcome,
        )
        return question_key(prompt, trajectory)

    assert key("a") == key("b") != ""
    others = [
        key("a", messages=({"role": "user", "content": "1 + 2"},)),
        key("a", reference="3"),
        key("a", reference=None),
        key("a", task="u"),
        key("a", extra={"level": 1}),
        key("a", extra={"level": "1"}),
    ]
    assert len({key("a"), *others}) == 7
    assert key("a", extra={"x": 1, "y": 2}) == key("b", extra={"y": 2, "x": 1})
    # An environment may give another conversation to another id.
    assert key("a", Outcome()) == ""
