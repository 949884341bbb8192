"""Noise models: nominal rates and laws at fixed seeds, the same draws on any worker in any order, errors in words."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.config import RewardConfig
from rollout.noise import NOISES
from rollout.noise.additive import sigma_for_pairwise_accuracy
from rollout.noise.base import RewardNoise
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.service import RewardService
from rollout.seeding import stream
from rollout.trajectory import FinishReason, Prompt, Trajectory

EXAMPLES: list[dict[str, Any]] = [
    {"type": "symmetric_flip", "p": 0.3},
    {"type": "asymmetric_flip", "false_positive_rate": 0.4, "false_negative_rate": 0.2, "memory": "persistent"},
    {"type": "reward_model_binary", "accuracy": 0.7},
    {"type": "systematic_false_positive", "phrase": "so", "probability": 0.5},
    {"type": "length_bias", "b": 0.5, "mean": 2.0, "std": 1.5},
    {"type": "confidence_flip", "false_positive_rate": 0.8, "false_negative_rate": 0.8},
    {"type": "majority_vote", "accuracy": 0.4},
    {"type": "gaussian", "sigma": 0.5},
    {"type": "reward_model_continuous", "accuracy": 0.7, "drift": 0.1},
    {"type": "student_t", "nu": 2.0, "scale": 0.5},
    {"type": "spikes", "probability": 0.3, "size": 5.0},
    {"type": "missing", "p": 0.3},
    {"type": "delay", "min_updates": 1, "max_updates": 4},
    {"type": "quantised", "levels": 2},
    {"type": "saturated", "low": 0.25, "high": 0.75},
    {"type": "systematic_false_negative", "pattern": "^so", "probability": 0.5},
    {"type": "sources", "sources": [{"share": 1}, {"share": 2, "noise": [{"type": "symmetric_flip", "p": 0.4}]}]},
]
IDENTITIES: list[dict[str, Any]] = [
    {"type": "symmetric_flip", "p": 0.0},
    {"type": "symmetric_flip", "p": 0.0, "unit": "group", "memory": "persistent"},
    {"type": "asymmetric_flip", "false_positive_rate": 0.0, "false_negative_rate": 0.0},
    {"type": "reward_model_binary", "accuracy": 1.0},
    {"type": "systematic_false_positive", "phrase": "so", "probability": 0.0},
    {"type": "systematic_false_positive", "phrase": "never said"},
    {"type": "length_bias", "b": 0.0, "mean": 100.0, "std": 10.0},
    {"type": "confidence_flip", "false_positive_rate": 0.0, "false_negative_rate": 0.0},
    {"type": "majority_vote", "votes": 1, "accuracy": 0.999, "concentration": 1e9, "seed": 1},
    {"type": "gaussian", "sigma": 0.0},
    {"type": "reward_model_continuous", "accuracy": 1.0},
    {"type": "student_t", "nu": 1.5, "scale": 0.0},
    {"type": "spikes", "probability": 0.0, "size": 20.0},
    {"type": "missing", "p": 0.0},
    {"type": "missing", "p": 0.0, "threshold": 0.5, "p_above": 0.0},
    {"type": "delay", "min_updates": 2, "max_updates": 2},
    {"type": "quantised", "levels": 2},
    {"type": "saturated"},
    {"type": "systematic_false_negative", "phrase": "never said"},
    {"type": "sources", "sources": [{"share": 1}, {"share": 2}]},
]


def make(**spec: Any) -> RewardNoise:
    noise: RewardNoise = build(ComponentSpec(**spec), NOISES, RewardNoise, "noise")
    return noise


def prompt(name: str = "p0", reference: str = "so it is") -> Prompt:
    return Prompt(prompt_id=name, messages=(), token_ids=(1,), reference=reference, task="t")


def response(sample: int = 0, name: str = "p0", text: str = "so it is", length: int = 3) -> Trajectory:
    tokens, mask, zeros = (1,) * (length + 2), (False,) * 2 + (True,) * length, (0.0,) * (length + 2)
    return Trajectory(
        prompt_id=name,
        sample_index=sample,
        token_ids=tokens,
        action_mask=mask,
        rollout_logprobs=zeros,
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )


def observe(noise: RewardNoise, reward: float, sample: int, name: str = "p0") -> float | None:
    """As the reward service calls it."""
    return noise(reward, prompt(name), response(sample, name), stream(7, name, sample, "noise.0"))


def many(noise: RewardNoise, reward: float, number: int, seed: int = 1) -> list[float | None]:
    """Draws from one stream: cheaper than a stream each, and the same law."""
    rng, question, answer = random.Random(seed), prompt(), response()
    return [noise(reward, question, answer, rng) for _ in range(number)]


def assert_rate(hits: int, number: int, rate: float) -> None:
    """``hits`` within 4 standard deviations of a binomial law."""
    assert abs(hits - number * rate) <= 4.0 * math.sqrt(number * rate * (1.0 - rate))


def test_examples_cover_every_model() -> None:
    assert {example["type"] for example in EXAMPLES} == set(NOISES)
    assert {example["type"] for example in IDENTITIES} == set(NOISES)


@pytest.mark.parametrize("spec", EXAMPLES, ids=lambda spec: spec["type"])
def test_draws_do_not_depend_on_worker_or_order(spec: dict[str, Any]) -> None:
    cases = [(name, sample) for name in ("p0", "p1", "p2") for sample in range(40)]
    one = make(**spec)
    forward = {case: observe(one, 1.0, case[1], case[0]) for case in cases}
    assert {case: observe(make(**spec), 1.0, case[1], case[0]) for case in reversed(cases)} == forward


@pytest.mark.parametrize("spec", IDENTITIES, ids=str)
def test_noise_rate_zero_is_the_identity(spec: dict[str, Any]) -> None:
    noise = make(**spec)
    for reward in (0.0, 1.0):
        assert [observe(noise, reward, sample) for sample in range(200)] == [reward] * 200


@pytest.mark.parametrize(
    ("spec", "false_positive", "false_negative"),
    [
        ({"type": "symmetric_flip", "p": 0.3}, 0.3, 0.3),
        ({"type": "asymmetric_flip", "false_positive_rate": 0.4, "false_negative_rate": 0.1}, 0.4, 0.1),
        ({"type": "reward_model_binary", "accuracy": 0.718}, 0.282, 0.282),
    ],
    ids=["symmetric", "asymmetric", "reward model"],
)
@pytest.mark.parametrize("memory", ["resampled", "persistent"])
def test_flips_hit_their_rates(spec: dict[str, Any], false_positive: float, false_negative: float, memory: str) -> None:
    number = 3_000
    noise = make(**spec, memory=memory, seed=3)
    names = [f"p{i}" if memory == "persistent" else f"p{i // 4}" for i in range(number)]
    for reward, rate in ((0.0, false_positive), (1.0, false_negative)):
        observed = [observe(noise, reward, i % 4, names[i]) for i in range(number)]
        assert set(observed) == {0.0, 1.0}
        assert_rate(sum(value != reward for value in observed), number, rate)


@pytest.mark.parametrize("unit", ["rollout", "group"])
def test_persistent_draws_repeat_for_a_prompt(unit: str) -> None:
    spec = {"type": "symmetric_flip", "p": 0.5, "memory": "persistent", "unit": unit}
    first = {}
    for name in map(str, range(100)):
        of_prompt = {observe(make(**spec), 0.0, sample, name) for sample in (0, 1, 8, 999)}
        other_run = make(**spec)(0.0, prompt(name), response(0, name), stream(12345, name, 0, "noise.3"))
        assert of_prompt == {other_run}
        first[name] = other_run
    assert_rate(sum(value == 1.0 for value in first.values()), 100, 0.5)
    other_seed = {name: observe(make(**spec, seed=1), 0.0, 0, name) for name in first}
    assert_rate(sum(first[name] != other_seed[name] for name in first), 100, 0.5)


def test_resampled_draws_differ_within_a_prompt() -> None:
    noise = make(type="symmetric_flip", p=0.5)
    assert_rate(sum(observe(noise, 0.0, sample) == 1.0 for sample in range(200)), 200, 0.5)


def service(samples_per_prompt: int | None = 4, run_seed: int = 0, **spec: Any) -> RewardService:
    config = RewardConfig(functions=(ComponentSpec(type="exact_match", answer_pattern="(.+)"),), noise=(spec,))
    return RewardService(config, run_seed, samples_per_prompt)


async def scores(workers: list[RewardService], cases: list[tuple[str, int]]) -> list[RewardRecord]:
    """Each case on the next worker."""
    return [
        await workers[i % len(workers)].score(prompt(name), response(sample, name))
        for i, (name, sample) in enumerate(cases)
    ]


async def test_a_group_shares_its_draw_on_every_worker() -> None:
    spec: dict[str, Any] = {"type": "symmetric_flip", "p": 0.5, "unit": "group"}
    cases = [(name, sample) for name in map(str, range(60)) for sample in range(12)]  # 3 epochs of 4 samples
    records = await scores([service(**spec), service(**spec), service(**spec)], cases)
    groups: dict[tuple[str, int], set[float | None]] = {}
    for (name, sample), record in zip(cases, records, strict=True):
        groups.setdefault((name, sample // 4), set()).add(record.observed)
    assert all(len(group) == 1 for group in groups.values())
    assert_rate(sum(group == {0.0} for group in groups.values()), len(groups), 0.5)
    moved = sum(groups[name, 0] != groups[name, 1] for name, epoch in groups if epoch == 0)
    assert_rate(moved, 60, 0.5)  # the next epoch draws anew
    again = await scores([service(**spec)], list(reversed(cases)))
    assert list(reversed(again)) == records
    other_run = await scores([service(run_seed=1, **spec)], cases)
    assert other_run != records


async def test_rollout_draws_in_the_service_are_independent_within_a_group() -> None:
    cases = [("p", sample) for sample in range(200)]
    records = await scores([service(type="symmetric_flip", p=0.5)], cases)
    assert_rate(sum(record.corrupted for record in records), 200, 0.5)


def test_group_draws_need_to_know_the_group() -> None:
    with pytest.raises(ValueError, match="needs samples_per_prompt"):
        service(None, type="symmetric_flip", p=0.5, unit="group")
    service(None, type="symmetric_flip", p=0.5, unit="group", memory="persistent")


async def test_missing_scores_are_none_and_never_zero() -> None:
    (record,) = await scores([service(type="missing", p=1.0)], [("p", 0)])
    assert record.observed is None and record.clean == 1.0
    assert record.outcome is RewardOutcome.MISSING
    observed = many(make(type="missing", p=0.3), 1.0, 5_000)
    assert set(observed) == {None, 1.0}
    assert_rate(observed.count(None), 5_000, 0.3)


def test_missing_may_depend_on_the_score() -> None:
    noise = make(type="missing", p=0.1, threshold=0.5, p_above=0.6)
    for reward, rate in ((0.0, 0.1), (0.5, 0.1), (1.0, 0.6)):
        observed = many(noise, reward, 5_000)
        assert set(observed) == {None, reward}
        assert_rate(observed.count(None), 5_000, rate)


@pytest.mark.parametrize("name", ["symmetric_flip", "asymmetric_flip", "reward_model_binary"])
@pytest.mark.parametrize("reward", [0.5, -1.0, 2.0, math.nan])
def test_flips_refuse_scores_that_have_no_opposite(name: str, reward: float) -> None:
    spec = next(example for example in EXAMPLES if example["type"] == name)
    with pytest.raises(ValueError, match="scores of exactly 0 or 1, got"):
        observe(make(**spec), reward, 0)


def test_systematic_false_positive_by_phrase() -> None:
    noise = make(type="systematic_false_positive", phrase="trust me", probability=0.7)
    rng, sly, plain = random.Random(0), response(text="5, trust me."), response(text="5, Trust me.")
    hits = sum(noise(0.0, prompt(), sly, rng) == 1.0 for _ in range(5_000))
    assert_rate(hits, 5_000, 0.7)
    assert {noise(0.0, prompt(), plain, rng) for _ in range(100)} == {0.0}
    assert {noise(1.0, prompt(), sly, rng) for _ in range(100)} == {1.0}
    with pytest.raises(ValueError, match="exactly 0 or 1"):
        noise(0.5, prompt(), sly, rng)


@pytest.mark.parametrize(("length", "observed"), [(0, 0.0), (5, 0.0), (6, 1.0)])
def test_systematic_false_positive_by_length(length: int, observed: float) -> None:
    noise = make(type="systematic_false_positive", longer_than_tokens=5)
    assert noise(0.0, prompt(), response(length=length), random.Random(0)) == observed


@pytest.mark.parametrize(("length", "observed"), [(10, 1.0), (14, 2.0), (2, -1.0)])
def test_length_bias_counts_sampled_tokens_only(length: int, observed: float) -> None:
    noise = make(type="length_bias", b=0.5, mean=10.0, std=2.0)
    assert noise(1.0, prompt(), response(length=length), random.Random(0)) == observed


def test_gaussian_has_its_mean_and_deviation() -> None:
    number, sigma = 20_000, 0.8
    noise = [value - 1.0 for value in many(make(type="gaussian", sigma=sigma), 1.0, number) if value is not None]
    assert abs(sum(noise)) <= 4.0 * sigma * math.sqrt(number)
    variance = sum(value * value for value in noise) / number
    assert abs(variance / sigma**2 - 1.0) <= 4.0 * math.sqrt(2.0 / number)


def hill_index(values: list[float], number: int) -> float:
    """Hill's estimate of the tail index from the ``number`` largest; its relative standard error is 1/sqrt(number)."""
    largest = sorted(values, reverse=True)[: number + 1]
    return number / sum(math.log(value / largest[number]) for value in largest[:number])


@pytest.mark.parametrize("nu", [1.0, 1.5, 3.0])
def test_student_t_has_its_tail_index(nu: float) -> None:
    values = many(make(type="student_t", nu=nu, scale=0.5), 0.0, 40_000)
    index = hill_index([abs(value) for value in values if value is not None], 400)
    assert abs(index / nu - 1.0) <= 4.0 / math.sqrt(400)
    assert_rate(sum(value is not None and value > 0.0 for value in values), 40_000, 0.5)


def test_student_t_has_the_quartiles_of_its_law() -> None:
    """nu = 1: the quartiles are -+scale; nu = 2: -+scale * sqrt(2/3)."""
    for nu, quartile in ((1.0, 0.5), (2.0, 0.5 * math.sqrt(2.0 / 3.0))):
        values = many(make(type="student_t", nu=nu, scale=0.5), 0.0, 20_000)
        assert_rate(sum(value is not None and abs(value) < quartile for value in values), 20_000, 0.5)


def test_gaussian_has_no_heavy_tail() -> None:
    values = many(make(type="gaussian", sigma=1.0), 0.0, 50_000)
    assert hill_index([abs(value) for value in values if value is not None], 400) > 6.0


def test_spikes_hit_their_rate_and_both_signs() -> None:
    values = many(make(type="spikes", probability=0.05, size=10.0), 0.5, 20_000)
    assert set(values) == {0.5, 10.5, -9.5}
    assert_rate(values.count(10.5), 20_000, 0.025)
    assert_rate(values.count(-9.5), 20_000, 0.025)


@pytest.mark.parametrize("accuracy", [0.65, 0.718, 0.9])
def test_gaussian_gives_the_pairwise_accuracy_asked_for(accuracy: float) -> None:
    """100 000 pairs; two standard normal clean scores each."""
    number, rng = 100_000, random.Random(11)
    noise = make(type="gaussian", sigma=sigma_for_pairwise_accuracy(accuracy))
    question, answer, agree = prompt(), response(), 0
    for _ in range(number):
        first, second = rng.gauss(0.0, 1.0), rng.gauss(0.0, 1.0)
        seen_first, seen_second = noise(first, question, answer, rng), noise(second, question, answer, rng)
        assert seen_first is not None and seen_second is not None
        agree += (first > second) == (seen_first > seen_second)
    assert abs(agree / number - accuracy) <= 0.005


def test_sigma_for_pairwise_accuracy_at_known_points() -> None:
    for accuracy, sigma in ((0.65, 1.96), (0.718, 1.22), (0.75, 1.0), (0.8, 0.73), (0.9, 0.32), (1.0, 0.0)):
        assert sigma_for_pairwise_accuracy(accuracy) == pytest.approx(sigma, abs=0.006)
    for accuracy in (0.5, 0.3, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"above 0\.5"):
            sigma_for_pairwise_accuracy(accuracy)


def test_quantised_and_saturated() -> None:
    five = make(type="quantised", levels=5, low=-1.0, high=1.0)
    for reward, level in ((-7.0, -1.0), (-0.76, -1.0), (-0.74, -0.5), (0.1, 0.0), (0.25, 0.5), (0.9, 1.0), (3.0, 1.0)):
        assert many(five, reward, 1) == [level]
    clipped = make(type="saturated", low=-0.5, high=0.5)
    assert [many(clipped, reward, 1)[0] for reward in (-2.0, -0.5, 0.1, 0.5, 2.0)] == [-0.5, -0.5, 0.1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "symmetric_flip"}, "noise.p: required"),
        ({"type": "symmetric_flip", "p": -0.1}, "noise.p: .*greater than or equal to 0"),
        ({"type": "symmetric_flip", "p": 0.1, "unit": "batch"}, "noise.unit: .*'rollout', 'group' or 'criterion'"),
        ({"type": "asymmetric_flip", "false_positive_rate": 1.1, "false_negative_rate": 0}, "false_positive_rate"),
        (
            {"type": "systematic_false_positive"},
            "exactly one trigger: 'phrase', 'longer_than_tokens', 'pattern' or 'near_miss'",
        ),
        ({"type": "systematic_false_positive", "pattern": "("}, "noise.pattern: .*not a regular expression"),
        ({"type": "systematic_false_negative"}, "exactly one trigger: 'phrase', 'longer_than_tokens' or 'pattern'"),
        ({"type": "systematic_false_negative", "near_miss": 1}, "near_miss"),
        ({"type": "sources", "sources": [{"share": 1}]}, "noise.sources: .*at least 2"),
        ({"type": "sources", "sources": [{"share": 1}, {"share": 0}]}, "noise.sources.1.share: .*greater than 0"),
        ({"type": "systematic_false_positive", "phrase": "a", "longer_than_tokens": 3}, "exactly one trigger"),
        ({"type": "length_bias", "b": 1, "mean": 10, "std": 0}, "noise.std: .*greater than 0"),
        ({"type": "student_t", "nu": 0.5, "scale": 1}, "noise.nu"),
        ({"type": "missing", "p": 0.1, "threshold": 0.5}, "give both, or neither"),
        ({"type": "quantised", "levels": 1}, "noise.levels"),
        ({"type": "quantised", "levels": 3, "low": 2, "high": 1}, "'low' must be below 'high'"),
        ({"type": "gaussian", "sgima": 1}, "did you mean 'sigma'"),
    ],
    ids=str,
)
def test_wrong_options_are_explained(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**spec)
