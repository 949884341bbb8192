"""RECAP: weights of loss parts, and replay (invariant 29)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import Estimates, OldOutputs
from learner.algorithms.without_critic.recap import Recap, Replayed, objective_weights
from learner.batch import TrainBatch
from learner.maths.collective import Collective, SingleProcess
from learner.metrics import to_floats
from learner.update.learner import Learner
from rollout.trajectory import ScoredTrajectory
from tests.learner.oracles import ThreadWorld, on_ranks
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

CALM = settings(max_examples=60, deadline=None)
OPTIONS = {"kl_coef": 0.1, "entropy_coef": 0.01}


def recap(**options: Any) -> Recap:
    found = build_algorithm("recap", {**OPTIONS, **options})
    assert isinstance(found, Recap)
    return found


@given(
    parts=st.lists(st.lists(st.floats(-10, 10), min_size=6, max_size=6), min_size=1, max_size=4),
    temperature=st.floats(0.2, 50.0),
)
@CALM
def test_invariant_29_weights_average_1_and_equal_the_formula(parts: list[list[float]], temperature: float) -> None:
    history = {f"part{k}": values for k, values in enumerate(parts)}
    weights = objective_weights(history, 3, temperature)
    assert sum(weights.values()) / len(weights) == pytest.approx(1.0, rel=1e-9)
    signals = []
    for values in parts:
        before, now = abs(sum(values[:3]) / 3) + 1e-8, abs(sum(values[3:]) / 3) + 1e-8
        mean = sum(values[3:]) / 3
        spread = math.sqrt(sum((x - mean) ** 2 for x in values[3:]) / 3)
        signals.append(min(now / before, 5.0) + min(spread / (now + before), 5.0))
    total = sum(math.exp(x / temperature) for x in signals)
    expected = [len(parts) * math.exp(x / temperature) / total for x in signals]
    assert [weights[f"part{k}"] for k in range(len(parts))] == pytest.approx(expected, rel=1e-6)


def test_weights_are_1_until_every_part_has_two_windows() -> None:
    assert objective_weights({"a": [1.0] * 6, "b": [1.0] * 5}, 3, 5.0) == {"a": 1.0, "b": 1.0}
    assert objective_weights({}, 3, 5.0) == {}


def test_equal_weights_give_the_loss_of_grpo_and_others_the_weighed_sum() -> None:
    batch = make_batch(1)
    plain, mine = build_algorithm("grpo", OPTIONS), recap(replay_frac=0.0)
    old = make_old(plain, batch, 2)
    inputs = policy_inputs(plain, batch, old, old.logprobs + 0.3)
    estimates = plain.estimate(batch, old, SingleProcess())
    expected = plain.policy_loss(inputs, estimates, counts(batch)).loss.item()
    assert mine.policy_loss(inputs, estimates, counts(batch)).loss.item() == pytest.approx(expected, rel=1e-9)
    sums = dict(mine._sums)
    assert set(sums) == {"surrogate", "kl", "entropy"}
    assert sum(sums.values()) == pytest.approx(expected, rel=1e-9)
    mine.weights = {"surrogate": 0.5, "kl": 2.0, "entropy": 0.25}
    weighed = sum(mine.weights[name] * value for name, value in sums.items())
    assert mine.policy_loss(inputs, estimates, counts(batch)).loss.item() == pytest.approx(weighed, rel=1e-9)


def test_windows_are_the_same_on_every_rank() -> None:
    batch, rows = make_batch(3), [torch.tensor([0, 5]), torch.tensor([1, 2, 3, 4, 6, 7])]
    whole, parts = recap(window=2), [recap(window=2), recap(window=2)]
    old = make_old(whole, batch, 1)
    estimates = whole.estimate(batch, old, SingleProcess())

    def run(algorithm: Recap, mine: torch.Tensor, world: Collective, logprobs: torch.Tensor) -> None:
        inputs = policy_inputs(algorithm, batch.rows(mine), take(old, mine), logprobs[mine])
        algorithm.policy_loss(inputs, estimates.rows(mine), counts(batch))
        algorithm.end_update(world, 1)

    def on_rank(world: ThreadWorld, logprobs: torch.Tensor) -> None:
        run(parts[world.rank], rows[world.rank], world, logprobs)

    for step in range(5):
        logprobs = old.logprobs + 0.1 * step**2
        run(whole, torch.arange(8), SingleProcess(), logprobs)
        on_ranks(2, partial(on_rank, logprobs=logprobs))
    assert whole.weights != dict.fromkeys(whole.weights, 1.0)
    for part in parts:
        assert part.weights == pytest.approx(whole.weights, rel=1e-6)
        assert {len(values) for values in part.history.values()} == {4}


def groups(samples: list[ScoredTrajectory]) -> list[str]:
    return list(dict.fromkeys(sample.group_id for sample in samples))


def test_replay_adds_whole_earlier_groups_after_the_fresh_ones() -> None:
    algorithm = recap(replay_frac=0.5, replay_capacity=3)
    first = random_samples(16, 0)  # four groups
    assert list(algorithm.select(first, 0)) == first  # nothing to replay yet
    second = list(algorithm.select(random_samples(16, 1), 1))
    assert second[:16] == random_samples(16, 1)
    assert len(second) == 24 and algorithm.num_fresh_groups == 4
    assert set(groups(second)[4:]) <= {"replay:p1@0", "replay:p2@0", "replay:p3@0"}  # the oldest had to go
    originals = [(s.trajectory, s.reward) for s in first]
    assert all((s.trajectory, s.reward) in originals for s in second[16:])
    other = recap(replay_frac=0.5, replay_capacity=3)
    other.select(first, 0)
    assert list(other.select(random_samples(16, 1), 1)) == second  # the same on every rank
    buffer = io.BytesIO()
    torch.save(algorithm.state_dict(), buffer)
    buffer.seek(0)
    restored = recap(replay_frac=0.5, replay_capacity=3)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert list(restored.select(random_samples(16, 2), 2)) == list(algorithm.select(random_samples(16, 2), 2))
    silent = recap(replay_frac=0.0)
    silent.select(first, 0)
    assert silent.replay.groups == []


def test_a_replay_buffer_of_an_earlier_version_is_read() -> None:
    """Trajectories in it had places for texts and outcomes too."""
    algorithm, restored = recap(replay_frac=0.5, replay_capacity=3), recap(replay_frac=0.5, replay_capacity=3)
    algorithm.select(random_samples(16, 0), 0)
    state = algorithm.replay.state_dict()
    for plain in (sample for group in state for sample in group):
        plain["trajectory"] |= {"response_text": "", "engine": "rollout-0", "messages": (), "outcome": None}
    restored.replay.load_state_dict(state)
    assert restored.replay.groups == algorithm.replay.groups


def test_the_learner_trains_on_replayed_rows_as_a_part_of_their_own(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner("recap", {**OPTIONS, "window": 2, "replay_frac": 0.5})
    algorithm = learner.algorithm
    assert isinstance(algorithm, Recap)
    flags: list[torch.Tensor] = []
    inner = algorithm.estimate

    def watched(batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        found = inner(batch, old, world).carried(Replayed, Replayed)
        assert found is not None
        flags.append(found.flags)
        return inner(batch, old, world)

    algorithm.estimate = watched  # type: ignore[method-assign]
    metrics = [to_floats(learner.update(random_samples(8, step), step).metrics) for step in range(6)]
    assert [int(flag.sum()) for flag in flags] == [0, 4, 4, 4, 4, 4]
    assert [len(flag) for flag in flags] == [8, 12, 12, 12, 12, 12]
    keys = [f"policy/objective_weight_{name}" for name in ("entropy", "kl", "replay", "surrogate")]
    assert sum(metrics[5][key] for key in keys) == pytest.approx(4.0)
    assert metrics[3][keys[0]] == 1.0 != metrics[4][keys[0]]
