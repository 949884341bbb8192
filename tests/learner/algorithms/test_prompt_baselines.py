"""James-Stein baseline, S-GRPO's group weight, SPO's tracker and REAL's classifier, against loops in plain Python."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.clipped_policy import ClippedPolicy
from learner.algorithms.records import CorrectedRewards, Estimates
from learner.algorithms.without_critic.beta_tracker import BetaTracker
from learner.algorithms.without_critic.james_stein import shrunk_baselines
from learner.algorithms.without_critic.s_grpo import group_weights
from learner.batch import TrainBatch
from learner.maths.collective import Collective, SingleProcess
from learner.metrics import to_floats
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.oracles import grad_of, on_ranks
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64
CALM = settings(max_examples=15, deadline=None)


def members(ids: Tensor) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, name in enumerate(ids.tolist()):
        found.setdefault(name, []).append(row)
    return found


def with_scores(batch: TrainBatch, scores: Tensor) -> TrainBatch:
    return CorrectedRewards(batch).with_scores(scores, {}).batch


@given(seed=st.integers(0, 2000), num=st.integers(1, 24), groups=st.integers(1, 6), binary=st.booleans())
@CALM
def test_shrunk_baselines_equal_the_loop(seed: int, num: int, groups: int, binary: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(num, generator=g, dtype=F64)
    scores = (scores > 0.3).double() if binary else scores
    ids = torch.randint(groups, (num,), generator=g) * 7 - 3
    found = shrunk_baselines(scores, ids)
    of = {name: [float(scores[row]) for row in rows] for name, rows in members(ids).items()}
    mean = {name: sum(values) / len(values) for name, values in of.items()}
    n = len(of)
    for row, name in enumerate(ids.tolist()):
        own = list(of[name])
        own.remove(float(scores[row]))
        others = sum(own) / len(own) if own else float(scores[row])
        if n == 1:
            assert found[row].item() == pytest.approx(others, abs=1e-12)
            continue
        rest = [k for k in of if k != name]
        centre = sum(mean[k] for k in rest) / (n - 1)
        sampled = [k for k in rest if len(of[k]) > 1]
        v = sum(sum((r - mean[k]) ** 2 for r in of[k]) / (len(of[k]) * (len(of[k]) - 1)) for k in sampled)
        v /= max(1, len(sampled))
        s = sum((mean[k] - centre) ** 2 for k in rest) / (n - 1)
        share = (n - 1) / n * v / (v + s) if v + s > 0 else 0.0
        share = share if own else 1.0
        assert found[row].item() == pytest.approx((1 - share) * others + share * centre, abs=1e-9)


@given(seed=st.integers(0, 500))
@CALM
def test_a_shrunk_baseline_does_not_know_its_own_score(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores, ids = torch.randn(12, generator=g, dtype=F64), torch.arange(12) // 3
    changed = scores.clone()
    changed[5] += 10.0
    assert shrunk_baselines(changed, ids)[5].item() == pytest.approx(shrunk_baselines(scores, ids)[5].item(), abs=1e-9)


def test_shrinking_brings_baselines_nearer_to_the_true_means() -> None:
    """What the paper is about: few samples of many prompts of similar means."""
    rng = random.Random(0)
    errors = {"shrunk": 0.0, "others": 0.0}
    for _ in range(200):
        truth = [min(1.0, max(0.0, rng.gauss(0.5, 0.15))) for _ in range(16)]
        rows = [float(rng.random() < p) for p in truth for _ in range(4)]
        scores, ids = torch.tensor(rows, dtype=F64), torch.arange(64) // 4
        others = (scores.reshape(16, 4).sum(dim=1, keepdim=True) - scores.reshape(16, 4)).flatten() / 3
        wanted = torch.tensor(truth, dtype=F64).repeat_interleave(4)
        errors["shrunk"] += float((shrunk_baselines(scores, ids) - wanted).square().mean())
        errors["others"] += float((others - wanted).square().mean())
    assert errors["shrunk"] < 0.5 * errors["others"]


@given(seed=st.integers(0, 1000), flip_rate=st.floats(0.0, 0.45))
@CALM
def test_group_weights_equal_the_formula(seed: int, flip_rate: float) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = (torch.rand(20, generator=g) < torch.rand(1, generator=g)).double()
    ids = torch.randint(5, (20,), generator=g)
    weights = group_weights(scores, ids, flip_rate)
    algorithm = build_algorithm("s-grpo", {"flip_rate": flip_rate})
    found = algorithm.group_advantages(scores, ids)  # type: ignore[attr-defined]
    for rows in members(ids).values():
        q = sum(float(scores[row]) for row in rows) / len(rows)
        t = min(1.0, max(0.0, (q - flip_rate) / (1 - 2 * flip_rate)))
        w = (1 - 2 * flip_rate) * t * (1 - t) / (math.sqrt(q * (1 - q) + 1e-8) * math.sqrt(t * (1 - t) + 1e-8))
        spread = math.sqrt(q * (1 - q))
        for row in rows:
            assert weights[row].item() == pytest.approx(w, abs=1e-9)
            z = (float(scores[row]) - q) / (spread + 1e-6) if spread > 0 else 0.0
            assert found[row].item() == pytest.approx(w * z, abs=1e-9)


def test_a_minority_that_flips_explain_gets_no_weight() -> None:
    scores, ids = torch.tensor([1.0] + [0.0] * 7 + [1.0] * 4 + [0.0] * 4, dtype=F64), torch.arange(16) // 8
    weights = group_weights(scores, ids, 0.2)
    assert weights[:8].tolist() == [0.0] * 8 and weights[8].item() == pytest.approx(0.6, abs=1e-6)


class SlowTracker:
    """All scores ever seen, weighed anew each time."""

    def __init__(self, rho: float, prior: float) -> None:
        self.rho, self.prior = rho, prior
        self.visits: dict[int, list[list[float]]] = {}

    def mean(self, key: int) -> float:
        past = self.visits.get(key, [])
        weights = [self.rho ** (len(past) - 1 - i) for i in range(len(past))]
        start = self.prior * self.rho ** len(past)
        above = start + sum(w * sum(visit) for w, visit in zip(weights, past, strict=True))
        return above / (2 * start + sum(w * len(visit) for w, visit in zip(weights, past, strict=True)))


@given(seed=st.integers(0, 500), rho=st.floats(0.3, 1.0))
@CALM
def test_spo_equals_an_account_of_all_scores(seed: int, rho: float) -> None:
    rng = random.Random(seed)
    algorithm, slow = build_algorithm("spo", {"rho": rho}), SlowTracker(rho, 0.5)
    for update in range(5):
        batch = make_batch(seed + update)
        scores = torch.tensor([rng.choice([0.0, 0.25, 1.0]) for _ in range(8)], dtype=F64)
        keys = [rng.randint(1, 5) for _ in range(8)]
        batch = with_scores(replace(batch, prompt_keys=torch.tensor(keys)), scores)
        found = algorithm.estimate(batch, make_old(algorithm, batch, 1), SingleProcess())
        raw = [float(score) - slow.mean(key) for score, key in zip(scores, keys, strict=True)]
        mean = sum(raw) / 8
        std = math.sqrt(sum((x - mean) ** 2 for x in raw) / 8)
        for row in range(8):
            expected = (raw[row] - mean) / (std + 1e-8)
            tokens = found.advantages[row][batch.action_mask[row]]
            assert tokens.tolist() == pytest.approx([expected] * len(tokens), abs=1e-6)
        for key in set(keys):
            new = [float(s) for s, k in zip(scores, keys, strict=True) if k == key]
            slow.visits.setdefault(key, []).append(new)
        assert to_floats(found.metrics)["reward/tracked_prompts"] == len(slow.visits)


def test_the_tracker_is_the_same_on_every_rank_and_after_a_restart() -> None:
    batch = make_batch(3)
    batch = with_scores(replace(batch, prompt_keys=torch.tensor([4, 4, 9, 2**62, 9, 4, 1, 1])), batch.scores * 0.1)
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]

    def ranked(world: Collective) -> Any:
        algorithm = build_algorithm("spo")
        part = batch.rows(rows[world.rank])
        for _ in range(3):
            algorithm.estimate(part, take(make_old(algorithm, batch, 1), rows[world.rank]), world)
        return algorithm

    alone = build_algorithm("spo")
    for _ in range(3):
        last = alone.estimate(batch, make_old(alone, batch, 1), SingleProcess())
    expected = alone.state_dict()["tracker"]
    assert expected["keys"].tolist() == [1, 4, 9, 2**62]
    for other in on_ranks(2, ranked):
        state = other.state_dict()["tracker"]
        assert torch.equal(state["keys"], expected["keys"]) and torch.equal(state["counts"], expected["counts"])
    again = build_algorithm("spo")
    again.load_state_dict(alone.state_dict())
    both = [a.estimate(batch, make_old(a, batch, 1), SingleProcess()).advantages for a in (alone, again)]
    assert torch.equal(*both) and not torch.equal(both[0], last.advantages)
    tracker = BetaTracker(0.9, 0.5)
    tracker.load_state_dict(BetaTracker(0.9, 0.5).state_dict())  # before anything was seen
    assert tracker.counts == {}


def test_a_refused_update_leaves_the_tracker_alone(make_learner: Callable[..., Learner]) -> None:
    learner = make_learner("spo", num_updates=4)
    learner.update(random_samples(8, 0), 0)
    before = learner.algorithm.state_dict()["tracker"]["counts"].clone()
    samples = random_samples(8, 1)
    learner.update([replace(samples[0], reward=math.inf), *samples[1:]], 1)
    assert torch.equal(learner.algorithm.state_dict()["tracker"]["counts"], before)
    learner.update(samples, 2)
    assert not torch.equal(learner.algorithm.state_dict()["tracker"]["counts"], before)


def whole_group_loss(means: dict[int, Tensor], labels: dict[int, int], tau: float) -> Tensor:
    """The paper's loss of one prompt."""
    right = [torch.exp(-means[row] / tau) for row in means if labels[row]]
    wrong = [torch.exp(means[row] / tau) for row in means if not labels[row]]
    if not right or not wrong:
        return torch.zeros((), dtype=F64)
    return torch.log(1 + torch.stack(right).sum()) + torch.log(1 + torch.stack(wrong).sum())


def real_case(seed: int, tau: float) -> tuple[ClippedPolicy, TrainBatch, Estimates, Any]:
    g = torch.Generator().manual_seed(seed)
    algorithm = build_algorithm("real", {"policy_objective": {"temperature": tau}, "importance_cap": None})
    assert isinstance(algorithm, ClippedPolicy)
    batch = make_batch(seed)
    batch = with_scores(batch, (torch.rand(8, generator=g) < 0.6).double())
    old = make_old(algorithm, batch, seed)
    return algorithm, batch, algorithm.estimate(batch, old, SingleProcess()), old


@given(seed=st.integers(0, 300), tau=st.floats(0.2, 2.0))
@CALM
def test_real_has_the_papers_gradient_in_the_first_step(seed: int, tau: float) -> None:
    algorithm, batch, estimates, old = real_case(seed, tau)

    def ours(x: Tensor) -> Tensor:
        return algorithm.policy_loss(policy_inputs(algorithm, batch, old, x), estimates, counts(batch)).loss

    def papers(x: Tensor) -> Tensor:
        total = 0.0 * x.sum()  # has a gradient, also where no group has both labels
        for rows in members(batch.group_ids).values():
            means = {row: (x - old.logprobs)[row][batch.action_mask[row]].mean() for row in rows}
            total = total + whole_group_loss(means, {row: int(batch.scores[row]) for row in rows}, tau)
        return total / len(batch)

    torch.testing.assert_close(grad_of(ours, old.logprobs), grad_of(papers, old.logprobs), rtol=1e-9, atol=1e-14)
    moved = old.logprobs + torch.where(batch.action_mask, old.logprobs.sin(), 0.0)
    gradient = grad_of(ours, moved)
    sizes = gradient.abs().sum(dim=1) * len(batch)
    assert bool((sizes <= 1 / tau + 1e-9).all())  # bounded, however far the policy has moved
    for row in range(8):
        mates = [r for r in range(8) if batch.group_ids[r] == batch.group_ids[row]]
        alike = [r for r in mates if batch.scores[r] == batch.scores[row]]
        mean = float((moved - old.logprobs)[row].sum() / batch.action_mask[row].sum())
        sign = 1 if batch.scores[row] else -1
        weight = 0.0 if len(alike) == len(mates) else 1 / tau / (1 + len(alike) * math.exp(sign * mean / tau))
        assert float(gradient[row].sum()) == pytest.approx(-sign * weight / len(batch), abs=1e-12)


def test_real_counts_labels_over_ranks() -> None:
    algorithm, batch, estimates, old = real_case(4, 0.5)
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]

    def share(world: Collective) -> float:
        own = build_algorithm("real", {"importance_cap": None})
        part, outputs = batch.rows(rows[world.rank]), take(old, rows[world.rank])
        found = own.estimate(part, outputs, world)
        inputs = policy_inputs(own, part, outputs, outputs.logprobs * 0.9)
        return float(own.policy_loss(inputs, found, counts(batch)).loss)

    whole = algorithm.policy_loss(policy_inputs(algorithm, batch, old, old.logprobs * 0.9), estimates, counts(batch))
    assert sum(on_ranks(2, share)) == pytest.approx(float(whole.loss), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("s-grpo", {"flip_rate": 0.5}, "algorithm.flip_rate"),
        ("s_grpo", {}, "algorithm.flip_rate"),
        ("s-grpo", {"reward_correction": ["normalise"]}, "normalise would change it first; leave it out"),
        ("real", {"reward_correction": ["mad_clip"]}, "policy_objective 'real' reads a verifier's own 0 or 1, and mad"),
        ("spo", {"rho": 0.0}, "algorithm.rho"),
        ("real", {"policy_objective": {"temperature": 0}}, "algorithm.policy_objective.temperature"),
        ("real", {"clip_ratio_low": 0.1}, "algorithm.clip_ratio_low has no effect with policy_objective 'real'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm(name, options)
    assert message in str(caught.value)


def test_what_each_needs_of_a_step() -> None:
    def needs(name: str) -> tuple[int, int]:
        algorithm: Algorithm = build_algorithm(name)
        return algorithm.min_prompts, algorithm.min_samples_per_prompt

    assert [needs(name) for name in ("james-stein", "s-grpo", "spo", "real")] == [(3, 2), (1, 2), (1, 1), (1, 2)]
