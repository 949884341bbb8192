"""The bonus for reading the prompt: its value, its gradient, what is hidden, and what a whole update makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.batch import collate
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from learner.update.learner import Learner
from learner.update.old_outputs.masked_prompt import with_hidden_prompt
from tests.learner.oracles import grad_of
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs


def test_loss_and_gradient_equal_the_loop() -> None:
    options = {"prompt_reading": {"coef": 0.3, "share": 0.5, "max_log_ratio": 0.6}, "loss_aggregation": "token_mean"}
    algorithm, plain = build_algorithm("grpo", options), build_algorithm("grpo", {"loss_aggregation": "token_mean"})
    batch = make_batch(1)
    old = make_old(algorithm, batch, 2)
    assert old.masked_logprobs is not None
    now = old.logprobs + 0.1
    estimates = algorithm.estimate(batch, old, SingleProcess())
    inputs = policy_inputs(algorithm, batch, old, now)
    found = algorithm.policy_loss(inputs, estimates, counts(batch))
    without = plain.policy_loss(inputs, estimates, counts(batch))
    places, number = batch.action_mask.nonzero().tolist(), int(batch.action_mask.sum())
    gains, slopes = [], {}
    for b, t in places:
        raw = float(now[b, t] - old.masked_logprobs[b, t])
        d = max(-0.6, min(0.6, raw))
        gains.append(math.exp(d) - d - 1.0)
        slopes[b, t] = -0.3 * (math.exp(d) - 1.0) / number if abs(raw) < 0.6 else 0.0
    assert {slope == 0.0 for slope in slopes.values()} == {True, False}, "some tokens are beyond the bound"
    assert float(found.loss) == pytest.approx(float(without.loss) - 0.3 * sum(gains) / number)
    assert to_floats(found.metrics)["policy/prompt_kl"] == pytest.approx(sum(gains) / number)

    def loss(x: Tensor, which: object = algorithm) -> Tensor:
        result: Tensor = which.policy_loss(policy_inputs(algorithm, batch, old, x), estimates, counts(batch)).loss  # type: ignore[attr-defined]
        return result

    both, surrogate = grad_of(loss, now), grad_of(lambda x: loss(x, plain), now)
    for b, t in places:
        assert float(both[b, t] - surrogate[b, t]) == pytest.approx(slopes[b, t], abs=1e-12)


def test_only_tokens_of_the_prompt_are_hidden_at_their_share_wherever_a_row_lies() -> None:
    samples = random_samples(400)
    batch = collate(samples, pad_token_id=1, seed=3)
    hidden = with_hidden_prompt(batch, 0.6, pad_token_id=1)
    moved = number = 0
    for row, sample in enumerate(samples):
        ids, first = sample.trajectory.token_ids, sample.trajectory.num_prompt_tokens
        found = hidden[row, : len(ids)].tolist()
        assert found[first:] == list(ids[first:])
        assert all(new in (old, 1) for new, old in zip(found, ids, strict=True))
        moved += sum(new == 1 for new in found[:first])
        number += first
    assert abs(moved - 0.6 * number) < 4.0 * math.sqrt(number * 0.24)
    some = collate(samples, [7, 3], pad_token_id=1, seed=3)
    other = with_hidden_prompt(some, 0.6, pad_token_id=1)
    width = min(other.shape[1], hidden.shape[1])
    assert torch.equal(other[:, :width], hidden[[7, 3], :width])


def test_after_an_observation_nothing_is_hidden() -> None:
    batch = make_batch(4)  # turns with an observation between them
    hidden = with_hidden_prompt(batch, 1.0, pad_token_id=9)
    assert (hidden == 9).nonzero().tolist() == [[row, column] for row in range(8) for column in range(2)]


def test_an_update_runs_the_policy_behind_hidden_prompts_and_no_other_method_does(
    make_learner: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, list[Tensor]] = {}
    for preset in ("grpo", "papo"):
        learner = make_learner(preset, num_updates=10)
        forward = learner.policy.forward

        def spy(preset: str = preset, forward: Callable[..., dict[str, Tensor]] = forward, **inputs: Tensor) -> object:
            calls.setdefault(preset, []).append(inputs["token_ids"])
            return forward(**inputs)

        monkeypatch.setattr(learner.policy, "forward", spy)
        metrics = to_floats(learner.update(random_samples(8), 0).metrics)
        assert ("policy/prompt_kl" in metrics) == (preset == "papo")
    grpo, papo = calls["grpo"], calls["papo"]
    assert len(papo) == 2 * len(grpo)
    first, second = papo[: len(grpo)], papo[len(grpo) :]
    assert all(torch.equal(a, b) for a, b in zip(second, grpo, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, grpo, strict=True))


def test_what_the_hidden_policy_says_reaches_the_loss(make_learner: Callable[..., Learner]) -> None:
    """With the weights before the update, d is the difference of two passes of the same model."""
    options = {"prompt_reading": {"coef": 0.5, "share": 1.0, "max_log_ratio": 50.0}}
    learner = make_learner("grpo", options, num_updates=10)
    samples = random_samples(8)
    whole = learner.logprobs([s.trajectory.token_ids for s in samples])
    blank = [
        (0,) * s.trajectory.num_prompt_tokens + s.trajectory.token_ids[s.trajectory.num_prompt_tokens :]
        for s in samples
    ]
    without = learner.logprobs(blank)
    d = [
        a - b
        for s, one, two in zip(samples, whole, without, strict=True)
        for a, b, sampled in zip(one, two, s.trajectory.action_mask, strict=True)
        if sampled
    ]
    found = to_floats(learner.update(samples, 0).metrics)["policy/prompt_kl"]
    assert found == pytest.approx(sum(math.exp(x) - x - 1.0 for x in d) / len(d), rel=1e-4)
