"""The correction as a whole: what it hands on, and what it never counts twice."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.evidence.channel import Channel
from learner.algorithms.corrections.evidence.correction import Evidence
from learner.algorithms.corrections.evidence.outcome_model import (
    NUM_BRIEF,
    NUM_LAST_TOKENS,
    NUM_SIGNALS,
    signals_of,
    votes_of,
)
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import SingleProcess
from rollout.component import UserError
from tests.learner.algorithms.corrections.evidence.simulated import Simulated, area_under_curve, responses
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import make_batch


def evidence(**options: Any) -> Evidence:
    return Evidence(Evidence.Config(**options))


def step(correction: Evidence, batch: Simulated) -> tuple[Tensor, dict[str, float]]:
    return correction._update(
        batch.seeds, batch.signals, batch.states, batch.scores, batch.gold, batch.prompts, batch.answers
    )


def quality(
    rates: tuple[float, float], gold_share: float, num_prompts: int = 0, **options: Any
) -> tuple[float, float, float]:
    """Area under the curve of rewards and of scores, and mean squared error of rewards, at the end of 40 updates."""
    correction, found = evidence(**options), []
    for update in range(40):
        batch = responses(128, update, rates, gold_share, num_prompts)
        rewards, _ = step(correction, batch)
        mse = float((rewards - batch.truths).square().mean())
        found.append((area_under_curve(rewards, batch.truths), area_under_curve(batch.scores, batch.truths), mse))
    auc, raw, mse = torch.tensor(found[-10:]).mean(dim=0).tolist()
    return auc, raw, mse


@pytest.mark.slow
def test_gold_labels_are_carried_to_prompts_that_were_never_seen() -> None:
    auc, raw, mse = quality((0.4, 0.4), 0.05)
    assert raw < 0.65
    assert auc > 0.85
    assert mse < 0.15


def groups(right: float, with_votes: bool) -> float:
    """Area under the curve within groups of 8 of whom only scores, labels and what others answered tell anything."""
    found = []
    for seed in range(2):
        correction = evidence(seed=seed)
        if not with_votes:
            correction._votes = lambda rows, alone: torch.zeros(len(rows), 2)  # type: ignore[method-assign]
        for update in range(30):
            batch = responses(128, 1000 * seed + update, (0.4, 0.4), 0.05, signal=0.0, group=8, right=right)
            rewards, _ = step(correction, batch)
            if update >= 22:
                found.append(area_under_curve(rewards, batch.truths))
    return sum(found) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize(("right", "least"), [(0.6, 0.1), (0.4, 0.01), (0.25, -0.03)])
def test_what_samples_agree_on_counts_for_as_much_as_labels_say_it_is_worth(right: float, least: float) -> None:
    """Much where most are right, less where most are wrong in several ways, and no loss where it says nothing."""
    assert groups(right, with_votes=True) - groups(right, with_votes=False) > least


def test_agreement_is_that_of_all_others_of_the_prompt() -> None:
    correction = evidence()
    batch = responses(3, 0, (0.0, 0.0))
    prompts, answers = torch.tensor([7, 7, 7, 7, 8]), torch.tensor([1, 1, 2, 0, 1])
    correction._update(
        torch.arange(100, 105),
        batch.signals[:1].expand(5, -1),
        batch.states[:1].expand(5, -1),
        torch.ones(5),
        torch.full((5,), torch.nan),
        prompts,
        answers,
    )
    # The fourth has no answer: it is no vote for itself, and what the others say is not about it.
    expected = votes_of(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), torch.tensor([3.0, 3.0, 3.0, 0.0, 0.0]))
    torch.testing.assert_close(correction.window.inputs[:, NUM_BRIEF : NUM_BRIEF + 2], expected)
    assert expected[:, 0].tolist() == pytest.approx([-0.125, -0.125, -0.375, 0.0, 0.0])


@pytest.mark.slow
def test_what_only_the_end_state_tells_is_found_and_what_it_does_not_tell_does_no_harm() -> None:
    def quality_with(apart: float, signal: float, **options: Any) -> float:
        correction, found = evidence(**options), []
        for update in range(40):
            batch = responses(128, update, (0.4, 0.4), 0.05, signal=signal, content=apart)
            rewards, _ = step(correction, batch)
            found.append(area_under_curve(rewards, batch.truths))
        return sum(found[-10:]) / 10

    assert quality_with(2.0, 0.0) > quality_with(2.0, 0.0, content=0) + 0.15
    assert quality_with(0.0, 1.0) > quality_with(0.0, 1.0, content=0) - 0.02


@pytest.mark.slow
def test_scores_that_say_the_opposite_become_useful_with_gold() -> None:
    auc, raw, _ = quality((0.55, 0.55), 0.05)
    assert raw < 0.5
    assert auc > 0.8


def test_repeats_alone_find_the_truth_of_recurring_prompts() -> None:
    auc, raw, mse = quality((0.3, 0.3), 0.0, num_prompts=128, value_model=False)
    assert raw < 0.75
    assert auc > 0.92
    assert mse < 0.1


def test_without_gold_and_repeats_scores_are_handed_on() -> None:
    correction = evidence()
    for update in range(5):
        batch = responses(128, update, (0.3, 0.3))
        rewards, metrics = step(correction, batch)
        assert torch.equal(rewards, batch.scores)
        assert metrics["correction/evidence_identified"] == 0.0


@pytest.mark.slow
def test_clean_scores_stay_as_they_are() -> None:
    correction = evidence()
    for update in range(20):
        batch = responses(256, update, (0.0, 0.0), gold_share=0.05)
        rewards, _ = step(correction, batch)
    assert float((rewards - batch.truths).abs().mean()) < 0.005
    assert float((rewards - batch.truths).abs().max()) < 0.25


def test_a_known_answer_keeps_its_true_reward() -> None:
    correction = evidence()
    first = responses(64, 0, (0.4, 0.4), gold_share=1.0, num_prompts=16)
    step(correction, first)
    later = responses(64, 1, (0.4, 0.4), gold_share=0.0, num_prompts=16)
    rewards, metrics = step(correction, later)
    seen = set(zip(first.prompts.tolist(), first.answers.tolist(), strict=True))
    known = torch.tensor([key in seen for key in zip(later.prompts.tolist(), later.answers.tolist(), strict=True)])
    assert 0.3 < float(known.float().mean()) < 1.0
    assert torch.equal(rewards[known], later.truths[known])
    assert metrics["correction/evidence_known_share"] == pytest.approx(float(known.float().mean()))


def test_nothing_is_remembered_of_answers_without_memory() -> None:
    correction = evidence(memory=False)
    for update in range(3):
        step(correction, responses(64, update, (0.4, 0.4), 0.5, num_prompts=16))
    assert len(correction.cells) == 3 * 64
    assert set(correction.cells.num_scores.tolist()) == {1.0}


def test_a_response_counts_once_however_often_it_is_trained_on() -> None:
    once, twice = evidence(), evidence()
    batch = responses(128, 0, (0.3, 0.3), 0.1, num_prompts=32)
    step(once, batch)
    step(twice, batch)
    step(twice, batch)
    assert np.array_equal(once.cells.num_scores, twice.cells.num_scores)
    assert len(twice.window.seeds) == 128


@pytest.mark.parametrize("exclusive", [False, True])
def test_posterior_equals_the_enumeration_of_all_truths(exclusive: bool) -> None:
    correction = evidence(exclusive=exclusive, value_model=False)
    batch = responses(24, 0, (0.3, 0.2), 0.1, num_prompts=3)
    correction.channel = channel = Channel(0.3, 0.2, (1.0, 1.0), -0.4, 0.01)
    correction._fit = lambda rows: None  # type: ignore[method-assign]  # the rates are given here
    rewards, _ = step(correction, batch)
    cells = correction.cells
    for row in range(24):
        prompt, answer = int(batch.prompts[row]), int(batch.answers[row])
        members, _ = cells.neighbours(np.array([cells.row_of(prompt, answer)]))
        masses = {0: 0.0, 1: 0.0}
        for truths in itertools.product((0, 1), repeat=len(members)):
            if exclusive and sum(truths) > 1:
                continue
            mass = 1.0
            for cell, truth in zip(members.tolist(), truths, strict=True):
                n, s, gold = cells.num_scores[cell], cells.sum_scores[cell], cells.gold[cell]
                mass *= 1.0 if math.isnan(gold) or gold == truth else 0.0
                prior = 1 / (1 + math.exp(0.4))
                one = 1 - channel.false_negative_rate if truth else channel.false_positive_rate
                mass *= (prior if truth else 1 - prior) * one**s * (1 - one) ** (n - s)
            masses[truths[members.tolist().index(cells.row_of(prompt, answer))]] += mass
        assert float(rewards[row]) == pytest.approx(masses[1] / (masses[0] + masses[1]), abs=1e-9)


def test_what_is_said_of_a_prompt_does_not_come_of_its_own_scores() -> None:
    def logits(spoil: bool) -> tuple[Tensor, Tensor]:
        correction = evidence(folds=4)
        for update in range(6):
            batch = responses(128, update, (0.2, 0.2), 0.3)
            own = correction.model.fold_of(batch.prompts) == 2
            if spoil:
                batch.gold[own] = 1 - batch.gold[own]
        correction.channel = Channel(0.2, 0.2, (1.0, 1.0), 0.0, 0.01)
        evidence_of = torch.where(batch.gold.isnan(), 0.0, torch.where(batch.gold > 0.5, 9.0, -9.0)).float()
        inputs = torch.cat([batch.signals, torch.zeros(128, 34)], dim=1)
        correction.model.train(inputs, batch.prompts, evidence_of, torch.ones(128), 3, 0)
        return correction.model.logits(inputs, batch.prompts), own

    (one, own), (other, _) = logits(False), logits(True)
    assert torch.equal(one[own], other[own])
    assert not torch.allclose(one[~own], other[~own])


def old_outputs(batch: Any, seed: int = 0) -> OldOutputs:
    g = torch.Generator().manual_seed(seed)
    mask = batch.action_mask
    logprobs = torch.where(mask, -torch.rand(mask.shape, generator=g), 0.0)
    entropy = torch.where(mask, torch.rand(mask.shape, generator=g), 0.0)
    return OldOutputs(batch.rollout_logprobs, logprobs, None, entropy, torch.randn(len(mask), 6, generator=g))


def test_it_is_the_same_on_any_number_of_ranks() -> None:
    rows = [torch.tensor([7, 1]), torch.tensor([0, 2, 3, 4, 5, 6])]
    alone, ranks = evidence(), [evidence(), evidence()]
    for update in range(3):
        batch = make_batch(update)
        batch = CorrectedRewards(batch).with_scores((batch.scores > 0.5).double(), {}).batch
        batch.gold_labels[:4] = batch.scores[:4].to(batch.gold_labels)
        old = old_outputs(batch, update)
        whole = alone(CorrectedRewards(batch), old, SingleProcess())

        def part(world: Any, batch: Any = batch, old: OldOutputs = old) -> Any:
            own = rows[world.rank]
            assert old.ref_logprobs is not None and old.ref_entropy is not None and old.ref_end_states is not None
            of_start = old.ref_entropy[own], old.ref_end_states[own]
            mine = OldOutputs(old.logprobs[own], old.ref_logprobs[own], None, *of_start)
            return ranks[world.rank](CorrectedRewards(batch.rows(own)), mine, world)

        parts = on_ranks(2, part)
        for rank, found in enumerate(parts):
            assert torch.equal(found.batch.scores, whole.batch.scores[rows[rank]])
    for name, value in alone.cells.state_dict().items():
        assert torch.equal(value.nan_to_num(9.0), ranks[0].cells.state_dict()[name].nan_to_num(9.0))


@pytest.mark.slow
def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    one, other = evidence(), evidence()
    for update in range(12):
        if update == 6:
            saved = one.state_dict()
            other.load_state_dict(torch.load(_saved(saved), weights_only=False))
        batch = responses(128, update, (0.4, 0.3), 0.1, num_prompts=64)
        mine, _ = step(one, batch)
        if update >= 6:
            theirs, _ = step(other, batch)
            assert torch.equal(mine, theirs)


def _saved(state: dict[str, Any]) -> Any:
    import io

    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream


def test_signals_are_the_last_tokens_and_the_spread_over_the_response() -> None:
    mask = torch.zeros(2, 14, dtype=torch.bool)
    mask[0, 3:6] = True
    mask[1, [2, 3, 4, 7, 8, 9, 10, 11, 12, 13]] = True  # two turns
    logprobs = torch.where(mask, -torch.arange(1.0, 15.0), 0.0)
    found = signals_of(logprobs, -logprobs / 2, mask, torch.tensor([False, True]))
    assert found.shape == (2, NUM_SIGNALS)
    assert found[0, :4].tolist() == pytest.approx([-6.0, -5.0, (2 / 3) ** 0.5, -6.0])
    assert found[0, 4:8].tolist() == pytest.approx([3.0, 2.5, (1 / 6) ** 0.5, 3.0])
    assert found[0, 8].item() == pytest.approx(math.log(4))
    assert found[:, 9].tolist() == [0.0, 1.0]
    assert found[0, NUM_BRIEF : NUM_BRIEF + 3].tolist() == [-5.0, -4.0, 0.0]
    ahead = found[1, NUM_BRIEF:].unflatten(0, (2, NUM_LAST_TOKENS - 1))
    assert ahead[0].tolist() == [-13.0, -12.0, -11.0, -10.0, -9.0, -8.0, -5.0]
    assert ahead[1].tolist() == [6.5, 6.0, 5.5, 5.0, 4.5, 4.0, 2.5]


def test_any_algorithm_takes_it_and_asks_for_the_starting_policy() -> None:
    for preset in ("grpo", "ppo", "dvpo", "reinforce-pp", "rloo"):
        algorithm = build_algorithm(preset, {"reward_correction": ["evidence"]})
        assert algorithm.needs_reference
        assert algorithm.estimates_with_reference
        assert not build_algorithm(preset, {"kl_coef": 0.0}).needs_reference


@pytest.mark.parametrize("score", [1.5, -0.2, 40.0])
def test_scores_outside_of_right_and_wrong_are_refused(score: float) -> None:
    batch = make_batch(0)
    scores = torch.full((len(batch),), 0.5)
    scores[3] = score
    batch = CorrectedRewards(batch).with_scores(scores, {}).batch
    with pytest.raises(UserError, match=rf"from 0 \(wrong\) to 1 \(right\), and got a score of {score:g}"):
        evidence()(CorrectedRewards(batch), old_outputs(batch), SingleProcess())
    with pytest.raises(ValueError, match="low must be below high"):
        evidence(low=1.0, high=1.0)


def test_another_range_of_scores() -> None:
    batch = make_batch(1)
    batch = CorrectedRewards(batch).with_scores(torch.where(batch.scores > 0.5, 4.0, -2.0), {}).batch
    batch.gold_labels[0] = 4.0
    found = evidence(low=-2.0, high=4.0)(CorrectedRewards(batch), old_outputs(batch), SingleProcess())
    assert found.batch.scores[0] == 4.0
    assert torch.equal(found.batch.scores[1:], batch.scores[1:])


def test_the_window_forgets_with_the_cells() -> None:
    correction = evidence(max_cells=1024, window=4096, value_model=False)
    for update in range(20):
        batch = responses(128, update, (0.3, 0.3), 0.05)
        rewards, _ = step(correction, batch)
    assert len(correction.cells) <= 1024
    assert len(correction.window.keys) == len(correction.window.inputs) == len(correction.window.seeds) <= 1024
    known = ~batch.gold.isnan()
    assert torch.equal(rewards[known], batch.truths[known])


def test_estimated_scores_say_how_uncertain_they_are_and_observed_ones_do_not() -> None:
    batch = make_batch(2)
    batch = CorrectedRewards(batch).with_scores((batch.scores > 0.5).double(), {}).batch
    correction = evidence(low=-1.0, high=3.0, value_model=False)
    observed = correction(
        CorrectedRewards(batch).with_scores(4.0 * batch.scores - 1.0, {}), old_outputs(batch), SingleProcess()
    )
    assert observed.score_variances is None
    correction.channel = Channel(0.4, 0.4, (1.0, 1.0), 0.0, 0.01)
    correction._fit = lambda rows: None  # type: ignore[method-assign]  # the rates are given here
    batch = replace(observed.batch, sample_seeds=batch.sample_seeds + 1, prompt_keys=batch.prompt_keys + 99)
    found = correction(CorrectedRewards(batch), old_outputs(batch), SingleProcess())
    share = (found.batch.scores.double() + 1.0) / 4.0
    assert 0.0 < float(share.min()) < float(share.max()) < 1.0
    assert found.score_variances is not None
    torch.testing.assert_close(found.score_variances, 16.0 * share * (1.0 - share), atol=1e-6, rtol=0.0)
    assert found.with_scores(batch.scores, {}).score_variances is None
