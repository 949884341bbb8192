"""What corrections leave out of a batch, what that costs, and that label smoothing changes no update."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from learner.algorithms.catalogue import build_algorithm
from learner.batch import collate
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from learner.update.learner import Learner
from rollout.trajectory import ScoredTrajectory
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import make_batch, make_old


def scored(rewards: list[float], seed: int = 0) -> list[ScoredTrajectory]:
    """Four samples to a prompt, with these rewards."""
    return [replace(s, reward=r) for s, r in zip(random_samples(len(rewards), seed), rewards, strict=True)]


def test_group_filter_keeps_prompts_whose_samples_differ_and_counts_the_cost() -> None:
    algorithm = build_algorithm("dapo")
    samples = scored([1, 1, 1, 1, 0, 1, 0, 0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 1])
    kept = algorithm.select(samples, 0)
    assert list(kept) == samples[4:8] + samples[12:]
    lengths = [sample.trajectory.num_response_tokens for sample in samples]
    dropped = sum(lengths[:4]) + sum(lengths[8:12])
    batch = collate(kept)
    found = to_floats(algorithm.estimate(batch, make_old(algorithm, batch, 0), SingleProcess()).metrics)
    assert found["correction/group_filter_frac"] == 0.5
    assert found["correction/group_filter_token_frac"] == pytest.approx(dropped / sum(lengths))
    again = build_algorithm("dapo")
    again.load_state_dict(pickle.loads(pickle.dumps(algorithm.state_dict())))
    constant = scored([1.0] * 8, 1)
    assert list(again.select(constant, 1)) == constant  # nothing would be left
    more = sum(sample.trajectory.num_response_tokens for sample in constant)
    found = to_floats(again.estimate(batch, make_old(again, batch, 0), SingleProcess()).metrics)
    assert found["correction/group_filter_token_frac"] == 0.0
    assert found["correction/group_filter_total_token_frac"] == pytest.approx(dropped / (sum(lengths) + more))


def test_a_filtered_update_is_that_of_the_prompts_that_are_left(make_learner: Callable[..., Learner]) -> None:
    """Also with replayed prompts behind them, which the comparison with the sampler leaves out."""
    samples = scored([1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    left = samples[4:8] + samples[12:]
    weights = []
    for given, corrections in ((samples, ["group_filter"]), (left, [])):
        learner = make_learner("grpo", {"reward_correction": corrections})
        learner.update(given, 0)
        weights.append(dict(learner.policy.full_weights()))
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    recap = make_learner("recap", {"reward_correction": ["group_filter"], "replay_frac": 1.0})
    recap.update(samples, 0)
    metrics = to_floats(recap.update(scored([0, 1] * 8, 5), 1).metrics)
    assert recap.algorithm.num_fresh_groups == 4  # type: ignore[attr-defined]
    assert metrics["correction/group_filter_frac"] == 0.0 and metrics["learner/rank_tokens_max"] > 0


def test_gold_only_reads_labels_and_no_scores() -> None:
    algorithm = build_algorithm("rloo", {"reward_correction": ["gold_only"]})
    assert algorithm.reads_gold
    labels: dict[int, float] = {1: 1.0, 2: 0.0, 3: 1.0, 6: 0.0, 7: 1.0}
    plain = scored([0.0] * 8)
    samples = [replace(sample, gold_label=labels.get(i)) for i, sample in enumerate(plain)]
    kept = algorithm.select(samples, 0)
    assert list(kept) == [samples[i] for i in labels]
    batch = collate(kept)
    found = algorithm.estimate(batch, make_old(algorithm, batch, 0), SingleProcess())
    expected = [1 - 1 / 2, 0 - 1, 1 - 1 / 2, 0 - 1, 1 - 0]  # each less the mean of the other labels of its prompt
    for row, advantage in enumerate(expected):
        tokens = found.advantages[row][batch.action_mask[row]].tolist()
        assert tokens == pytest.approx([advantage] * len(tokens))
    assert to_floats(found.metrics)["correction/gold_only_labels"] == 5.0
    assert list(algorithm.select(plain, 0)) == plain
    nothing = algorithm.estimate(collate(plain), make_old(algorithm, collate(plain), 0), SingleProcess())
    assert nothing.weights.policy is not None and not nothing.weights.policy.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [("ppo", {}), ("grpo", {}), ("rloo", {}), ("reinforce", {"whiten": "std"}), ("reinforce-pp", {"kl_coef": 0.0})],
)
def test_label_smoothing_is_undone_by_what_follows(name: str, options: dict[str, Any]) -> None:
    """Advantages differ by a factor at most, and not at all where they are whitened; a remark says so."""
    batch = make_batch(3)
    batch = replace(batch, scores=(batch.scores > 0.4).double())
    batch = replace(batch, rewards=torch.where(batch.rewards != 0, batch.scores[:, None], 0.0))
    found = []
    for corrections in ([], [{"type": "label_smoothing", "epsilon": 0.4}]):
        algorithm = build_algorithm(name, {**options, "reward_correction": corrections})
        old = make_old(algorithm, batch, 1)
        if old.critic is not None:  # a critic that has learned such rewards
            values = old.critic.quantile_values
            learned = torch.where(batch.action_mask[..., None, None], 0.6 * values + 0.2, 0.0)
            old = replace(old, critic=replace(old.critic, quantile_values=learned if corrections else values))
        found.append(algorithm.estimate(batch, old, SingleProcess()).advantages[batch.action_mask])
        assert any("label_smoothing changes nothing" in remark for remark in algorithm.remarks()) == bool(corrections)
    factor = 0.6 if name == "rloo" else 1.0
    torch.testing.assert_close(found[1], factor * found[0], rtol=1e-4, atol=1e-6)
    assert found[0].abs().max() > 0.1
