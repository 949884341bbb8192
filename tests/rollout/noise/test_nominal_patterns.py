"""The noises of the study hit their nominal rates, and the responses that they are meant to and no others."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain
from rollout.noise.sources import Sources
from rollout.noise.triggers import is_near_miss, is_one_edit
from rollout.trajectory import FinishReason, Prompt, Trajectory

NUMBER = 4_000


def make(**spec: Any) -> RewardNoise:
    noise: RewardNoise = build(ComponentSpec(**spec), NOISES, RewardNoise, "reward.noise.0")
    return noise


def prompt(name: str, reference: str | None = "42") -> Prompt:
    return Prompt(prompt_id=name, messages=(), token_ids=(1,), reference=reference, task="t")


def response(name: str, sample: int, text: str = "= 42", length: int = 4, version: int = 0) -> Trajectory:
    return Trajectory(
        prompt_id=name,
        sample_index=sample,
        token_ids=(1,) * (length + 1),
        action_mask=(False,) + (True,) * length,
        rollout_logprobs=(0.0,) * (length + 1),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=version,
        policy_version_max=version,
    )


def observe(
    noises: Sequence[dict[str, Any]], reward: float, name: str, sample: int, reference: str = "42", **shape: Any
) -> float | None:
    """As the reward service does."""
    chain = NoiseChain([make(**spec) for spec in noises], run_seed=3, samples_per_prompt=4)
    asked, answered = prompt(name, reference), response(name, sample, **shape)
    return chain.observe({"r": reward}, {"r": 1.0}, asked, answered).observed


def assert_rate(hits: int, number: int, rate: float) -> None:
    """``hits`` within 4 standard deviations of a binomial law."""
    assert abs(hits - number * rate) <= 4.0 * math.sqrt(number * rate * (1.0 - rate)), (hits / number, rate)


TRIGGERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "phrase": ({"phrase": "= 7"}, {"text": "3 = 7"}, {"text": "3 =7"}),
    "length": ({"longer_than_tokens": 8}, {"length": 9}, {"length": 8}),
    "format": ({"pattern": r"^\S+=\S+$"}, {"text": "so\n3+4=8"}, {"text": "so 3 + 4 = 8"}),
}
"""Options of a trigger, a response that shows it, and one that nearly does."""


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize(("type", "hit", "other"), [("positive", 0.0, 1.0), ("negative", 1.0, 0.0)])
def test_a_systematic_error_hits_its_trigger_at_its_rate_and_nothing_else(
    trigger: str, type: str, hit: float, other: float
) -> None:
    options, shows, nearly = TRIGGERS[trigger]
    noises = [{"type": f"systematic_false_{type}", **options, "probability": 0.7}]
    observed = [observe(noises, hit, f"p{i}", 0, **shows) for i in range(NUMBER)]
    assert set(observed) == {0.0, 1.0}
    assert_rate(sum(value != hit for value in observed), NUMBER, 0.7)
    for i in range(200):
        assert observe(noises, hit, f"p{i}", 0, **nearly) == hit, "without the trigger the score stays"
        assert observe(noises, other, f"p{i}", 0, **shows) == other, "it errs in one direction"


@pytest.mark.parametrize(
    ("answer", "reference", "near"),
    [
        ("41", "42", True),
        ("43.0", "42", True),
        ("42", "42.0", False),
        ("40.9", "42", False),
        ("-42", "42", False),
        ("helum", "Helium", True),
        ("helixm", "helium", True),
        ("heliium", "helium", True),
        ("helium", "helium", False),
        ("heimlu", "helium", False),
        ("he", "helium", False),
        ("42 m", "42", False),
        ("6.7e-11", "6.674e-11", True),
        ("6.7e-11", "1.661e-27", False),
        ("1", "0", True),
    ],
)
def test_near_misses(answer: str, reference: str, near: bool) -> None:
    assert is_near_miss(answer, reference, 1.0) is near


def edits(text: str, letters: str) -> set[str]:
    """All texts one edit away, by trying them all."""
    found = {text[:i] + text[i + 1 :] for i in range(len(text))}
    found |= {text[:i] + letter + text[i:] for i in range(len(text) + 1) for letter in letters}
    return (found | {text[:i] + letter + text[i + 1 :] for i in range(len(text)) for letter in letters}) - {text}


def test_one_edit_equals_trying_all_of_them() -> None:
    rng = random.Random(5)
    words = ["".join(rng.choices("ab", k=rng.randint(0, 5))) for _ in range(60)]
    for first in words:
        close = edits(first, "ab")
        assert [is_one_edit(first, word) for word in words] == [word in close for word in words]


def test_near_misses_pass_at_their_rate_and_far_ones_never() -> None:
    noises = [{"type": "systematic_false_positive", "near_miss": 1.0, "probability": 0.4}]
    observed = [observe(noises, 0.0, f"p{i}", 0, text=f"= {43 - 2 * (i % 2)}") for i in range(NUMBER)]
    assert_rate(observed.count(1.0), NUMBER, 0.4)
    assert {observe(noises, 0.0, f"p{i}", 0, text="= 7") for i in range(200)} == {0.0}
    with pytest.raises(ValueError, match="has no reference"):
        make(**noises[0])(0.0, prompt("p", None), response("p", 0), random.Random(0))


def test_sources_judge_their_shares_and_err_at_their_own_rates() -> None:
    """A quarter of the prompts is judged right, a half mostly passes what is wrong, and a quarter says the opposite."""
    sources = [
        {"share": 1.0},
        {"share": 2.0, "noise": [{"type": "asymmetric_flip", "false_positive_rate": 0.6, "false_negative_rate": 0.1}]},
        {"share": 1.0, "noise": [{"type": "symmetric_flip", "p": 1.0}]},
    ]
    noises = [{"type": "sources", "sources": sources, "seed": 2}]
    model = make(**noises[0])
    assert isinstance(model, Sources)
    place = {f"p{i}": model.source_of(prompt(f"p{i}"), response(f"p{i}", 0)) for i in range(NUMBER)}
    counts = Counter(place.values())
    for source, share in enumerate((0.25, 0.5, 0.25)):
        assert_rate(counts[source], NUMBER, share)
    for reward, rates in ((0.0, (0.0, 0.6, 1.0)), (1.0, (0.0, 0.1, 1.0))):
        wrong = Counter(place[name] for name in place if observe(noises, reward, name, 1) != reward)
        for source, rate in enumerate(rates):
            assert_rate(wrong[source], counts[source], rate)
    again = {name: model.source_of(prompt(name), response(name, 17)) for name in place}
    assert again == place, "a prompt keeps its source"
    by_response = make(**{**noises[0], "unit": "response"})
    assert isinstance(by_response, Sources)
    found = Counter(by_response.source_of(prompt("p0"), response("p0", sample)) for sample in range(NUMBER))
    assert_rate(found[1], NUMBER, 0.5)


def test_a_source_may_lose_scores() -> None:
    lossy = {"type": "missing", "p": 0.5}
    noises = [{"type": "sources", "sources": [{"share": 1}, {"share": 1, "noise": [lossy]}], "unit": "response"}]
    observed = [observe(noises, 1.0, "p", sample) for sample in range(NUMBER)]
    assert set(observed) == {1.0, None}
    assert_rate(observed.count(None), NUMBER, 0.25)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"type": "symmetric_flip", "p": 0.1, "unit": "group"}, "sources.1.noise.0: .*one by one"),
        ({"type": "symmetric_flip", "p": 0.1, "unit": "criterion"}, "sources.1.noise.0: .*one by one"),
        ({"type": "delay"}, "sources.1.noise.0: .*reward.noise itself"),
        ({"type": "symetric_flip", "p": 0.1}, "sources.1.noise.0.type: .*did you mean 'symmetric_flip'"),
        ({"type": "symmetric_flip"}, "sources.1.noise.0.p: required"),
    ],
)
def test_what_a_source_cannot_have_is_said(noise: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(type="sources", sources=[{"share": 1}, {"share": 1, "noise": [noise]}])
    assert str(caught.value).startswith("reward.noise.0"), caught.value


def test_persistent_flips_are_the_same_prompts_in_every_epoch() -> None:
    noises = [{"type": "symmetric_flip", "p": 0.3, "memory": "persistent"}]
    first = [observe(noises, 0.0, f"p{i}", 0) for i in range(NUMBER)]
    assert_rate(first.count(1.0), NUMBER, 0.3)
    assert [observe(noises, 0.0, f"p{i}", 4_000) for i in range(NUMBER)] == first
    assert [observe(noises, 1.0, f"p{i}", 1) for i in range(NUMBER)] == [1.0 - (value or 0.0) for value in first]


def test_drift_moves_all_scores_of_a_version_alike() -> None:
    noises = [{"type": "reward_model_continuous", "accuracy": 0.718, "clean_std": 0.5, "drift": 0.02}]
    early = [observe(noises, 1.0, f"p{i}", 0, version=0) for i in range(300)]
    late = [observe(noises, 1.0, f"p{i}", 0, version=50) for i in range(300)]
    assert {round((b or 0.0) - (a or 0.0), 9) for a, b in zip(early, late, strict=True)} == {1.0}


def test_length_bias_correlates_with_length_as_much_as_it_says() -> None:
    """b = .25 for each deviation of length, on scores of deviation .5: a correlation of .25 / sqrt(.25^2 + .5^2)."""
    noises = [{"type": "length_bias", "b": 0.25, "mean": 12.0, "std": 4.0}]
    rng = random.Random(0)
    lengths = [8 if rng.random() < 0.5 else 16 for _ in range(NUMBER)]
    clean = [float(rng.random() < 0.5) for _ in range(NUMBER)]
    seen = [observe(noises, r, "p", 0, length=n) for r, n in zip(clean, lengths, strict=True)]
    values = [value for value in seen if value is not None]
    mean_l, mean_v = sum(lengths) / NUMBER, sum(values) / NUMBER
    covariance = sum((a - mean_l) * (b - mean_v) for a, b in zip(lengths, values, strict=True)) / NUMBER
    spread = math.sqrt(sum((a - mean_l) ** 2 for a in lengths) * sum((b - mean_v) ** 2 for b in values)) / NUMBER
    assert covariance / spread == pytest.approx(0.25 / math.hypot(0.25, 0.5), abs=4.0 / math.sqrt(NUMBER))


def test_majority_labels_are_right_as_often_as_votes_make_them() -> None:
    """Against the law of the label by its definition: c is drawn, then votes, then the mode, ties at random."""
    options = {"votes": 8, "accuracy": 0.5, "concentration": 2.0, "num_wrong_answers": 4}
    noises = [{"type": "majority_vote", **options}]
    prompts = 800
    right = [observe(noises, 1.0, f"p{i}", 0) for i in range(prompts)]
    rng, hits, number = random.Random(1), 0, 5_000
    for _ in range(number):
        c = rng.betavariate(1.0, 1.0)
        votes = [0 if rng.random() < c else rng.choices([1, 2, 3, 4], [1, 1 / 2, 1 / 3, 1 / 4])[0] for _ in range(8)]
        counts = [votes.count(answer) for answer in range(5)]
        hits += rng.choice([a for a in range(5) if counts[a] == max(counts)]) == 0
    margin = 4.0 * math.sqrt(0.25 / prompts + 0.25 / number)
    assert right.count(1.0) / prompts == pytest.approx(hits / number, abs=margin)
    wrong = [f"p{i}" for i, value in enumerate(right) if value == 0.0]
    passing = [name for name in wrong if any(observe(noises, 0.0, name, s, text=f"= {s}") for s in range(12))]
    assert len(passing) > len(wrong) / 2, "where the label is wrong some wrong answers are paid for"
    for name in passing[:20]:
        first = [observe(noises, 0.0, name, s, text=f"= {s}") for s in range(12)]
        assert [observe(noises, 0.0, name, 100 + s, text=f"= {s}") for s in range(12)] == first, (
            "the same ones each time"
        )
