"""Trajectories to tensors, and who trains on which."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from learner.batch import TrainBatch, collate
from rollout.scoring.record import RewardRecord
from rollout.trajectory import FinishReason, Label, ScoredTrajectory, TokenTrajectory, Trajectory


def scored(
    num_prompt: int, num_response: int, reward: float, name: str = "p", sample: int = 0, **changes: Any
) -> ScoredTrajectory:
    length = num_prompt + num_response
    trajectory = Trajectory(
        prompt_id=name,
        sample_index=sample,
        token_ids=tuple(range(1, length + 1)),
        action_mask=(False,) * num_prompt + (True,) * num_response,
        rollout_logprobs=(0.0,) * num_prompt + tuple(-0.1 * (i + 1) for i in range(num_response)),
        response_text="",
        finish_reason=FinishReason.STOP,
        policy_version_min=3,
        policy_version_max=4,
    )
    return ScoredTrajectory(trajectory=replace(trajectory, **changes), reward=reward, group_id=f"{name}@0")


def test_collate_pads_and_puts_the_reward_on_the_last_action() -> None:
    short = scored(2, 2, 0.5, "a")
    turns = scored(
        1, 5, -1.0, "b", finish_reason=FinishReason.LENGTH, action_mask=(False, True, True, False, True, False)
    )
    again = scored(1, 1, 2.0, "a", sample=1)
    batch = collate([short, turns, again], pad_token_id=9)
    assert batch.token_ids.tolist() == [[1, 2, 3, 4, 9, 9], [1, 2, 3, 4, 5, 6], [1, 2, 9, 9, 9, 9]]
    assert batch.lengths.tolist() == [4, 6, 2]
    assert batch.action_mask.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert batch.rewards.tolist() == [[0, 0, 0, 0.5, 0, 0], [0, 0, 0, 0, -1.0, 0], [0, 2.0, 0, 0, 0, 0]]
    # log-probabilities of tokens that nobody sampled are dropped
    expected = torch.tensor([[0, 0, -0.1, -0.2, 0, 0], [0, -0.1, -0.2, 0, -0.4, 0], [0, -0.1, 0, 0, 0, 0]])
    torch.testing.assert_close(batch.rollout_logprobs, expected)
    assert batch.scores.tolist() == [0.5, -1.0, 2.0]
    assert batch.group_ids.tolist() == [0, 1, 0]
    assert batch.truncated.tolist() == [False, True, False]
    assert batch.policy_version_min.tolist() == [3, 3, 3]


def test_rows_keep_their_seed_and_group_on_any_rank() -> None:
    samples = [scored(1, i + 1, float(i), f"p{i // 2}", sample=i) for i in range(6)]
    whole = collate(samples, seed=7)
    part = collate(samples, [4, 1], seed=7)
    assert part.sample_seeds.tolist() == whole.sample_seeds[[4, 1]].tolist()
    assert part.group_ids.tolist() == [2, 0] == whole.group_ids[[4, 1]].tolist()
    assert len(set(whole.sample_seeds.tolist())) == 6
    assert (whole.sample_seeds >= 0).all()
    assert collate(samples, seed=8).sample_seeds.tolist() != whole.sample_seeds.tolist()


def test_no_rows_is_a_batch_of_nothing() -> None:
    batch = collate([scored(1, 2, 0.0)], [])
    assert len(batch) == 0
    assert batch.token_ids.shape == batch.rewards.shape == (0, 2)
    assert batch.scores.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "reward", "message"),
    [
        ({"finish_reason": FinishReason.ABORT}, 0.0, "aborted"),
        ({"rollout_logprobs": (0.0,)}, 0.0, "one common length"),
        ({"action_mask": (True, True, True)}, 0.0, "first token"),
        ({}, float("nan"), "reward is nan"),
        ({"rollout_logprobs": (0.0, float("-inf"), 0.0)}, 0.0, "not finite"),
    ],
)
def test_untrainable_trajectories_are_refused_by_name(changes: dict[str, Any], reward: float, message: str) -> None:
    with pytest.raises(ValueError, match=rf"trajectory q#0 cannot be trained on.*{message}"):
        collate([scored(1, 2, 0.0), scored(1, 2, reward, "q", **changes)], [0])  # also on ranks that do not hold it


def same(one: TrainBatch, other: TrainBatch, name: str) -> bool:
    return torch.equal(*(torch.nan_to_num(getattr(batch, name).double(), nan=-9.0) for batch in (one, other)))


def test_the_batch_has_no_room_for_a_clean_score() -> None:
    names = {f.name for f in fields(TrainBatch)}
    assert names == {
        "token_ids", "attention_mask", "action_mask", "rollout_logprobs", "rewards", "scores", "group_ids",
        "truncated", "sample_seeds", "policy_version_min", "prompt_keys", "answer_keys", "gold_labels",
        "loss_weights",
    }  # fmt: skip
    assert not any("clean" in name for name in names)
    # nor has anything that collate() is given: a clean score lives in RewardRecord only, and a gold label is one that
    # the user gives away on purpose
    assert {f.name for f in fields(ScoredTrajectory)} == {
        "trajectory", "reward", "group_id", "question_key", "answer_key", "gold_label",
        "weight",
    }  # fmt: skip
    assert {f.name for f in fields(Label)} == {f.name for f in fields(ScoredTrajectory)} - {"trajectory"}
    assert not any("clean" in f.name or "reward" in f.name for f in fields(TokenTrajectory))
    assert "clean" in {f.name for f in fields(RewardRecord)}
    # the only numbers that depend on the reward are rewards and scores, and they hold the observed one
    one, other = collate([scored(1, 2, 1.0)]), collate([scored(1, 2, 5.0)])
    changed = {f.name for f in fields(TrainBatch) if not same(one, other, f.name)}
    assert changed == {"rewards", "scores"}


def test_rows_that_ask_the_same_share_keys_and_others_have_their_own() -> None:
    def keys(prompt_id: str, question: str, answer: str) -> tuple[int, int]:
        sample = replace(scored(1, 2, 0.0, prompt_id), question_key=question, answer_key=answer)
        batch = collate([sample])
        return int(batch.prompt_keys[0]), int(batch.answer_keys[0])

    assert keys("a", "q", "8") == keys("b", "q", "8")
    assert keys("a", "q", "8")[0] == keys("b", "q", "9")[0] != keys("b", "r", "8")[0]
    assert keys("a", "q", "8")[1] not in (keys("a", "q", "9")[1], keys("a", "r", "8")[1])
    assert keys("a", "", "8") == keys("a", "", "8")
    assert keys("a", "", "8")[1] != keys("b", "", "8")[1]  # not known what is asked: only itself
    assert keys("a", "q", "")[1] == 0
