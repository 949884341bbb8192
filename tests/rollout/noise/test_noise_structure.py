"""Structured noise: single criteria, errors tied to answers, confidence or votes, late scores, and chains of models."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.config import RewardConfig
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain, NoisyScore
from rollout.noise.confidence import ConfidenceFlip
from rollout.noise.delay import Delay
from rollout.noise.majority_vote import MajorityVote
from rollout.noise.votes import final_answer, label_by_votes
from rollout.scoring.service import RewardService
from rollout.trajectory import REPLACEMENT_STRIDE, FinishReason, Prompt, Trajectory

ONE = {"whole": 1.0}


def make(**spec: Any) -> RewardNoise:
    noise: RewardNoise = build(ComponentSpec(**spec), NOISES, RewardNoise, "noise")
    return noise


def delay(**options: int) -> Delay:
    return Delay(Delay.Config(**options))


def prompt(name: str = "p0") -> Prompt:
    return Prompt(prompt_id=name, messages=(), token_ids=(1,), reference="4", task="t")


def response(
    sample: int = 0, name: str = "p0", text: str = "= 4", logprob: float = 0.0, length: int = 2, version: int = 0
) -> Trajectory:
    mask = (False,) + (True,) * length
    logprobs = (0.0,) + (logprob,) * length
    return Trajectory(
        prompt_id=name,
        sample_index=sample,
        token_ids=(1,) * len(mask),
        action_mask=mask,
        rollout_logprobs=logprobs,
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=version,
        policy_version_max=version,
    )


def exact_tails(hits: int, number: int, rate: float) -> tuple[float, float]:
    """P(X <= hits) and P(X >= hits) for X binomial, summed term by term."""

    def term(k: int) -> float:
        binomial = math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
        return math.exp(binomial + k * math.log(rate) + (number - k) * math.log1p(-rate))

    return sum(map(term, range(hits + 1))), sum(map(term, range(hits, number + 1)))


def assert_rate(hits: int, number: int, rate: float) -> None:
    """Neither tail of the exact binomial law is below 1e-4."""
    assert min(exact_tails(hits, number, rate)) > 1e-4, f"{hits}/{number} against {rate:g}"


def observe(chain: NoiseChain, clean: float, sample: int, name: str = "p0", text: str = "= 4") -> NoisyScore:
    return chain.observe({"whole": clean}, ONE, prompt(name), response(sample, name, text))


@pytest.mark.parametrize("memory", ["resampled", "persistent", "answer"])
def test_criteria_are_flipped_each_by_itself(memory: str) -> None:
    spec = {"type": "asymmetric_flip", "false_positive_rate": 0.4, "false_negative_rate": 0.1, "memory": memory}
    chain = NoiseChain([make(unit="criterion", **spec)], run_seed=3)
    parts, weights = {"right": 1.0, "polite": 0.0, "short": 0.0}, {"right": 1.0, "polite": 10.0, "short": 100.0}
    seen: Counter[tuple[bool, bool, bool]] = Counter()
    for i in range(2_000):
        got = chain.observe(parts, weights, prompt(f"p{i}"), response(0, f"p{i}"))
        assert got.observed is not None
        right, polite, short = (int(got.observed) // 10**k % 10 for k in range(3))
        assert got.corrupted == ((right, polite, short) != (1, 0, 0))
        seen[right == 0, polite == 1, short == 1] += 1
    for place, rate in enumerate((0.1, 0.4, 0.4)):
        assert_rate(sum(count for flips, count in seen.items() if flips[place]), 2_000, rate)
    assert_rate(sum(count for flips, count in seen.items() if flips[1] and flips[2]), 2_000, 0.16)  # independent


def test_a_persistent_criterion_keeps_its_draw() -> None:
    chain = NoiseChain([make(type="symmetric_flip", p=0.5, unit="criterion", memory="persistent")], run_seed=3)
    weights = {"a": 1.0, "b": 2.0}
    values = set()
    for name in map(str, range(40)):
        of_prompt = {chain.observe({"a": 0.0, "b": 0.0}, weights, prompt(name), response(i, name)) for i in range(5)}
        assert len(of_prompt) == 1
        values |= {next(iter(of_prompt)).observed}
    assert values == {0.0, 1.0, 2.0, 3.0}


def test_errors_of_an_answer_stay_with_it() -> None:
    """The same wrong answer to the same prompt passes each time or never: in other words, in any sample, in any run."""
    spec = {"type": "asymmetric_flip", "false_positive_rate": 0.3, "false_negative_rate": 0.0, "memory": "answer"}
    passed = {}
    for number in range(1_000):
        texts = (f"so 2 + 2 = {number}", f"hm.\n2 + 2 = {number}.0", f"Answer: {number}")
        runs = [observe(NoiseChain([make(**spec)], run), 0.0, run, text=text) for run, text in enumerate(texts)]
        assert len(set(runs)) == 1
        passed[number] = runs[0].observed == 1.0
    assert_rate(sum(passed.values()), 1_000, 0.3)
    other = {number: observe(NoiseChain([make(**spec)], 0), 0.0, 0, "p1", f"= {number}") for number in passed}
    moved = sum(passed[number] != (seen.observed == 1.0) for number, seen in other.items())
    assert_rate(moved, 1_000, 2 * 0.3 * 0.7)  # another prompt has other wrong answers that pass


@pytest.mark.parametrize(
    ("logprob", "confidence"), [(-0.5, 0.5), (-0.25, 1 / (1 + math.exp(-1))), (-2.5, 1 / (1 + math.exp(8)))]
)
def test_confident_mistakes_pass_and_hesitant_answers_fail(logprob: float, confidence: float) -> None:
    noise = make(type="confidence_flip", false_positive_rate=0.6, false_negative_rate=0.4)
    assert isinstance(noise, ConfidenceFlip)
    answer = response(logprob=logprob, length=7)
    assert noise.confidence(answer) == pytest.approx(confidence, abs=1e-12)
    rng = random.Random(5)
    for clean, rate in ((0.0, 0.6 * confidence), (1.0, 0.4 * (1.0 - confidence))):
        flipped = sum(noise(clean, prompt(), answer, rng) != clean for _ in range(4_000))
        assert_rate(flipped, 4_000, rate)
    assert noise.confidence(response(length=0)) == 0.0


def mode_law(votes: int, right: float, wrong: int, number: int) -> float:
    """P(the mode of ``votes`` votes is right), by simulation from the definition with another generator."""
    import numpy as np

    rng = np.random.default_rng(0)
    zipf = 1.0 / np.arange(1, wrong + 1)
    counts = rng.multinomial(votes, [right, *((1.0 - right) * zipf / zipf.sum())], size=number)
    tied = counts == counts.max(axis=1, keepdims=True)
    return float((tied[:, 0] / tied.sum(axis=1)).mean())


def test_simulated_votes_have_the_law_of_their_mode() -> None:
    """With a huge concentration every prompt has the same c; a tie is right once in as many as are tied."""
    noise = make(type="majority_vote", votes=8, accuracy=0.3, concentration=1e9, num_wrong_answers=4)
    assert isinstance(noise, MajorityVote)
    expected = mode_law(8, 0.3, 4, 400_000)
    labels = Counter(noise.label(f"p{i}") for i in range(2_000))
    assert_rate(labels[0], 2_000, expected)
    assert labels[1] > labels[2] > labels[4] > 0  # Zipf: the most popular wrong answer wins most often


def test_mean_vote_accuracy_is_the_one_asked_for() -> None:
    """One vote: the label is right with probability c, whose mean over prompts is the accuracy."""
    for accuracy in (0.3, 0.7):
        noise = make(type="majority_vote", votes=1, accuracy=accuracy, concentration=2.0)
        assert isinstance(noise, MajorityVote)
        assert_rate(sum(noise.label(f"p{i}") == 0 for i in range(2_000)), 2_000, accuracy)


def test_votes_pay_the_popular_mistake() -> None:
    noise = make(type="majority_vote", votes=8, accuracy=0.3, num_wrong_answers=4)
    assert isinstance(noise, MajorityVote)
    wrong = next(f"p{i}" for i in range(100) if noise.label(f"p{i}") == 1)
    right = next(f"p{i}" for i in range(100) if noise.label(f"p{i}") == 0)
    assert noise(1.0, prompt(wrong), response(0, wrong), random.Random(0)) == 0.0
    answers = [f"= {number}" for number in range(1_000)]
    paid = [noise(0.0, prompt(wrong), response(0, wrong, text), random.Random(0)) for text in answers]
    assert_rate(sum(value == 1.0 for value in paid), 1_000, 12 / 25)  # Zipf over 4: 1 / (1 + 1/2 + 1/3 + 1/4)
    assert [noise(0.0, prompt(wrong), response(9, wrong, text), random.Random(1)) for text in answers] == paid
    assert {noise(0.0, prompt(right), response(0, right, text), random.Random(0)) for text in answers} == {0.0}
    assert noise(1.0, prompt(right), response(0, right), random.Random(0)) == 1.0
    with pytest.raises(ValueError, match="exactly 0 or 1"):
        noise(0.5, prompt(), response(), random.Random(0))


@pytest.mark.parametrize(
    ("answers", "label", "scores", "share"),
    [
        (["4", "4.0", " 4 ", "5"], "4", (1.0, 1.0, 1.0, 0.0), 0.75),
        (["1/2", "0.5", "50%", None], "1/2", (1.0, 1.0, 1.0, 0.0), 0.75),
        (["Paris", "paris", "Rome"], "paris", (1.0, 1.0, 0.0), 2 / 3),
        ([None, None, "7"], "7", (0.0, 0.0, 1.0), 1 / 3),
        ([None, None], None, (None, None), 0.0),
    ],
)
def test_the_majority_labels_a_prompt(
    answers: list[str | None], label: str | None, scores: tuple[float | None, ...], share: float
) -> None:
    got = label_by_votes(answers, random.Random(0))
    assert (got.label, got.scores) == (label, scores)
    assert got.share == pytest.approx(share)
    order = list(range(len(answers)))
    random.Random(1).shuffle(order)
    again = label_by_votes([answers[i] for i in order], random.Random(0))
    assert again.label == label and again.scores == tuple(scores[i] for i in order)


def test_ties_are_broken_evenly_and_in_any_order_alike() -> None:
    winners = Counter(label_by_votes(["1", "2", "3", "2", "1"], random.Random(i)).label for i in range(2_000))
    assert set(winners) == {"1", "2"}
    assert_rate(winners["1"], 2_000, 0.5)
    for i in range(20):
        forward, backward = (label_by_votes(list(a), random.Random(i)) for a in ("1221", "2112"))
        assert forward.label == backward.label and forward.num_tied == 2


def test_a_weak_majority_labels_nothing() -> None:
    answers = ["1", "1", "2", "3", None]
    assert label_by_votes(answers, random.Random(0), min_share=0.4).label == "1"
    weak = label_by_votes(answers, random.Random(0), min_share=0.41)
    assert (weak.label, weak.scores, weak.share) == (None, (None,) * 5, 0.4)
    with pytest.raises(ValueError, match="without samples"):
        label_by_votes([], random.Random(0))


def test_final_answers_in_normal_form() -> None:
    assert final_answer("2 + 2 = 4.00") == final_answer("Answer: 4") == "4"
    assert final_answer("No  idea\nat all") == "no idea at all"


def test_a_reward_model_drifts_with_the_version() -> None:
    noise = make(type="reward_model_continuous", accuracy=0.75, clean_std=0.5, drift=0.02)
    rng = random.Random(4)
    for version in (0, 50):
        values = [noise(1.0, prompt(), response(version=version), rng) for _ in range(10_000)]
        mean = sum(value for value in values if value is not None) / len(values)
        assert abs(mean - 1.0 - 0.02 * version) <= 4 * 0.5 / 100.0  # sigma is 1 at .75
    with pytest.raises(UserError, match=r"noise\.accuracy"):
        make(type="reward_model_continuous", accuracy=0.5)


def test_delays_are_uniform_and_add_up() -> None:
    chain = NoiseChain([delay(min_updates=1, max_updates=4)], run_seed=0)
    seen = Counter(observe(chain, 1.0, sample).delay_updates for sample in range(4_000))
    assert set(seen) == {1, 2, 3, 4}
    for count in seen.values():
        assert_rate(count, 4_000, 0.25)
    assert {observe(chain, 0.5, sample).observed for sample in range(50)} == {0.5}
    assert not observe(chain, 0.5, 0).corrupted
    both = NoiseChain([delay(min_updates=2, max_updates=2), delay(min_updates=3, max_updates=3)], 0)
    assert observe(both, 1.0, 0).delay_updates == 5
    assert observe(NoiseChain([make(type="symmetric_flip", p=0.5)], 0), 1.0, 0).delay_updates == 0
    with pytest.raises(ValueError, match="must not be above"):
        delay(min_updates=3, max_updates=2)


CHAIN: list[dict[str, Any]] = [
    {"type": "symmetric_flip", "p": 0.2, "unit": "criterion"},
    {"type": "systematic_false_positive", "phrase": "trust", "probability": 0.5},
    {"type": "asymmetric_flip", "false_positive_rate": 0.3, "false_negative_rate": 0.1, "unit": "group"},
    {"type": "missing", "p": 0.2},
    {"type": "gaussian", "sigma": 0.5},
]


def chain_of(specs: list[dict[str, Any]], run_seed: int = 7) -> NoiseChain:
    return NoiseChain([make(**spec) for spec in specs], run_seed, samples_per_prompt=4)


def test_a_chain_is_the_same_on_any_worker_in_any_order() -> None:
    cases = [(f"p{i}", sample) for i in range(30) for sample in range(8)]
    one = chain_of(CHAIN)
    forward = {case: observe(one, 1.0, case[1], case[0]) for case in cases}
    workers = [chain_of(CHAIN) for _ in range(3)]
    again = {case: observe(workers[i % 3], 1.0, case[1], case[0]) for i, case in enumerate(reversed(cases))}
    assert again == forward
    assert {case: observe(chain_of(CHAIN, 8), 1.0, case[1], case[0]) for case in cases} != forward


def test_a_replacement_shares_its_groups_draw() -> None:
    """A sample drawn in the place of another is of the same prompt in the same epoch, whatever its number."""
    chain = chain_of([{"type": "symmetric_flip", "p": 0.5, "unit": "group"}])
    for name in (f"p{i}" for i in range(20)):
        for first in (0, 4):
            numbers = [first, first + 3, REPLACEMENT_STRIDE + first + 1, 2 * REPLACEMENT_STRIDE + first + 1]
            assert len({observe(chain, 1.0, number, name).corrupted for number in numbers}) == 1


def test_models_are_applied_in_their_order() -> None:
    """Flip then scale up is not scale up then flip: the latter is refused, as 3 has no opposite."""
    flip, shift = {"type": "symmetric_flip", "p": 1.0}, {"type": "length_bias", "b": 1.0, "mean": 0.0, "std": 1.0}
    assert observe(chain_of([flip, shift]), 1.0, 0).observed == 2.0  # 0 + two tokens
    with pytest.raises(ValueError, match="before any that changes the score's scale"):
        observe(chain_of([shift, flip]), 1.0, 0)
    assert observe(chain_of([flip, flip]), 1.0, 0) == NoisyScore(
        observed=1.0, corrupted=False, delay_updates=0
    )  # twice flipped is not corrupted


def test_two_flips_make_the_flip_of_both() -> None:
    """p and q in a row flip with p + q - 2 p q: the draws of two models of one type are independent."""
    chain = chain_of([{"type": "symmetric_flip", "p": 0.2}, {"type": "symmetric_flip", "p": 0.3}])
    assert_rate(sum(observe(chain, 1.0, sample).corrupted for sample in range(3_000)), 3_000, 0.2 + 0.3 - 0.12)


def test_the_mask_says_exactly_what_changed() -> None:
    chain = chain_of(CHAIN[:4])
    seen = [observe(chain, clean, sample) for clean in (0.0, 1.0) for sample in range(500)]
    assert all(
        got.corrupted == (got.observed != clean) for got, clean in zip(seen, [0.0] * 500 + [1.0] * 500, strict=True)
    )
    assert {got.observed for got in seen} == {0.0, 1.0, None}
    assert {got.corrupted for got in seen} == {True, False}


def test_nothing_follows_a_missing_score() -> None:
    chain = chain_of([{"type": "missing", "p": 1.0}, {"type": "gaussian", "sigma": 1.0}])
    assert observe(chain, 1.0, 0) == NoisyScore(observed=None, corrupted=True, delay_updates=0)
    assert observe(NoiseChain([], 0), 0.25, 0) == NoisyScore(observed=0.25, corrupted=False, delay_updates=0)


def test_criteria_come_before_the_sum() -> None:
    with pytest.raises(UserError, match=r"reward\.noise\.1: .*move it before reward\.noise\.0"):
        chain_of([{"type": "gaussian", "sigma": 1.0}, {"type": "symmetric_flip", "p": 0.1, "unit": "criterion"}])
    with pytest.raises(ValueError, match="needs samples_per_prompt"):
        NoiseChain([make(type="symmetric_flip", p=0.1, unit="group")], 0)


async def test_the_service_flips_criteria_before_it_adds_them() -> None:
    """Two rewards of weights 1 and 10: every sum of flipped verdicts occurs, and parts stay clean in the record."""
    functions = tuple(
        ComponentSpec(type="exact_match", answer_pattern=pattern, weight=weight)
        for pattern, weight in (("= (.+)", 1.0), ("(never)", 10.0))
    )
    noise = (ComponentSpec(type="symmetric_flip", p=0.5, unit="criterion"),)
    service = RewardService(RewardConfig(functions=functions, noise=noise), run_seed=1)
    records = [await service.score(prompt(), response(sample)) for sample in range(400)]
    seen = Counter(record.observed for record in records)
    assert set(seen) == {0.0, 1.0, 10.0, 11.0}
    for count in seen.values():
        assert_rate(count, 400, 0.25)
    assert {record.clean for record in records} == {1.0}
    assert {tuple(record.parts.values()) for record in records} == {(1.0, 0.0)}
    assert all(record.corrupted == (record.observed != 1.0) for record in records)
