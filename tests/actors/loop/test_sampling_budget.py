"""Samples by surprise: the allotment, that weights undo it exactly, and that it waits for whoever is to come."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace

import pytest
import torch

from actors.groups import Group
from actors.loop.config import SamplingBudgetConfig, TrainingConfig
from actors.loop.sampling_budget import SamplingBudget, allot
from learner.algorithms.catalogue import build_algorithm
from learner.maths.collective import SingleProcess
from tests.actors.loop.group_race import prompt, sample
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs

CONFIG = SamplingBudgetConfig(mean=4, pilot=2)


def greedy(surprises: list[float], total: int, least: int, most: int) -> list[int]:
    """One sample after the other, each to the prompt with most surprise per sample that it would then have."""
    numbers = [least] * len(surprises)
    while sum(numbers) < total:
        open_ones = [i for i, number in enumerate(numbers) if number < most]
        best = max(surprises[i] / (numbers[i] + 1) for i in open_ones)
        numbers[next(i for i in open_ones if surprises[i] / (numbers[i] + 1) == best)] += 1
    return numbers


def test_allotment_equals_the_loop() -> None:
    rng = random.Random(0)
    for _ in range(300):
        prompts, least = rng.randint(1, 6), rng.randint(0, 2)
        most = least + rng.randint(0, 5)
        total = rng.randint(least * prompts, most * prompts)
        surprises = [rng.choice([0.0, 1.0, rng.random()]) for _ in range(prompts)]
        found = allot(surprises, total, least, most)
        assert found == greedy(surprises, total, least, most)
        assert sum(found) == total and least <= min(found) <= max(found) <= most


def test_allotment_is_in_proportion_where_no_bound_is_met() -> None:
    assert allot([1.0, 2.0, 5.0], 80, 1, 80) == [10, 20, 50]
    with pytest.raises(ValueError, match="5 samples cannot be allotted to 2 prompts, 1 to 2 each"):
        allot([1.0, 1.0], 5, 1, 2)


def settled(index: int, surprises: list[float], first: int = 0) -> Group:
    """A group whose pilots had these surprises."""
    group = Group(index, f"g{index}", prompt(index), 6, 0)
    for i, surprise in enumerate(surprises):
        one = sample()
        one.summary = replace(one.summary, surprise=surprise)
        one.reward = replace(one.reward, sample_index=first + i)
        group.samples.append(one)
    return group


def weighed(group: Group, number: int, first: int) -> list[float]:
    """The weights of a group's samples, once it has ``number`` further ones."""
    group.samples += settled(group.index, [0.0] * number, first + CONFIG.pilot).samples
    SamplingBudget(CONFIG, 6, lambda: False).weigh(group, first, number)
    return [one.weight for one in group.samples]


async def numbers_of(budget: SamplingBudget, groups: list[Group]) -> list[int]:
    for group in groups:
        budget.begin(group)
    return list(await asyncio.gather(*(budget.further(group) for group in groups)))


async def test_weights_leave_the_gradient_what_it_was_in_expectation() -> None:
    """All outcomes of all pilots, by enumeration: a sample's gradient and surprise depend on each other.

    A plain mean over all samples of a prompt is biased: a pilot that surprises brings further samples, which dilute it.
    """
    laws = [((0.3, -1.0, 2.0), (0.7, 1.0, 0.1)), ((0.5, 3.0, 1.0), (0.5, -2.0, 0.2))]  # probability, gradient, surprise
    truth = [sum(p * g for p, g, _ in law) for law in laws]
    expected, naive = [0.0, 0.0], [0.0, 0.0]
    for outcome in itertools.product(*(itertools.product(law, repeat=CONFIG.pilot) for law in laws)):
        chance = 1.0
        for pilots in outcome:
            for p, _, _ in pilots:
                chance *= p
        groups = [settled(i, [s for _, _, s in pilots], first=12) for i, pilots in enumerate(outcome)]
        numbers = await numbers_of(SamplingBudget(CONFIG, 6, lambda: False), groups)
        assert sum(numbers) == 4
        for i, (pilots, number) in enumerate(zip(outcome, numbers, strict=True)):
            weights = weighed(groups[i], number, 12)
            assert sum(weights) == pytest.approx(CONFIG.mean), "each prompt weighs what it did"
            of_pilots = sum(w * g for w, (_, g, _) in zip(weights, pilots, strict=False))
            expected[i] += chance * (of_pilots + sum(weights[2:]) * truth[i])  # the others are independent of number
            plain = (sum(g for _, g, _ in pilots) + number * truth[i]) / (2 + number)
            naive[i] += chance * CONFIG.mean * plain
    assert expected == pytest.approx([CONFIG.mean * value for value in truth])
    assert all(abs(found - CONFIG.mean * value) > 0.02 for found, value in zip(naive, truth, strict=True))


async def test_it_waits_for_pilots_and_for_prompts_that_are_to_come() -> None:
    room = True
    budget = SamplingBudget(CONFIG, 6, lambda: room)
    groups = [settled(i, surprises) for i, surprises in enumerate(([4.0, 4.0], [1.0], []))]
    budget.begin(groups[0])
    first = asyncio.create_task(budget.further(groups[0]))
    await asyncio.sleep(0)
    assert not first.done(), "another prompt may be admitted"
    for group in groups[1:]:
        budget.begin(group)
    room = False
    second = asyncio.create_task(budget.further(groups[1]))
    await asyncio.sleep(0)
    assert not second.done(), "the third prompt's pilots are not done"
    third = await budget.further(groups[2])
    numbers = [await first, await second, third]
    assert numbers == greedy([4.0, 1.0, 2.5], 6, 1, 4), "without a scored pilot a prompt counts as the mean"
    alone = settled(3, [9.0])
    budget.begin(alone)
    assert await budget.further(alone) == 2, "one that takes a dropped prompt's place gets the mean"


@pytest.mark.parametrize(("mean", "pilot", "most"), [(2, 2, 8), (4, 2, 3)])
def test_what_cannot_be_is_said(mean: int, pilot: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"pilot < mean <= samples_per_prompt.*got {pilot}, {mean} and {most}"):
        TrainingConfig(samples_per_prompt=most, sampling_budget=SamplingBudgetConfig(mean=mean, pilot=pilot))


def test_a_step_has_as_many_trajectories_as_without() -> None:
    training = TrainingConfig(prompts_per_step=3, samples_per_prompt=6, sampling_budget=CONFIG)
    assert training.trajectories_per_step == 12


@pytest.mark.parametrize("preset", ["grpo", "ppo", "spo", "dvpo"])
def test_both_losses_of_a_trajectory_weigh_by_it(preset: str) -> None:
    """The gradient of each row is that without weights, times its weight."""
    options = {"critic": {"num_quantiles": 20}, "alpha": 0.2, "beta": 0.2} if preset == "dvpo" else None
    batch = make_batch(3)
    weights = torch.tensor([1.0, 1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 0.25], dtype=torch.float64)
    found = []
    for loss_weights in (torch.ones_like(weights), weights):
        algorithm, rows = build_algorithm(preset, options), replace(batch, loss_weights=loss_weights)
        old = make_old(algorithm, rows, 4)
        logprobs = (old.logprobs + 0.01).requires_grad_()
        estimates = algorithm.estimate(rows, old, SingleProcess())
        loss = algorithm.policy_loss(policy_inputs(algorithm, rows, old, logprobs), estimates, counts(rows)).loss
        gradients = [torch.autograd.grad(loss, logprobs)[0]]
        if old.critic is not None:
            values = old.critic.quantile_values.clone().requires_grad_()
            critic = algorithm.critic_loss(replace(old.critic, quantile_values=values), rows, estimates, counts(rows))
            gradients.append(torch.autograd.grad(critic.loss, values)[0])
        found.append(gradients)
    for plain, with_weights in zip(*found, strict=True):
        shape = (-1, *(1,) * (plain.dim() - 1))
        torch.testing.assert_close(with_weights, plain * weights.reshape(shape))
