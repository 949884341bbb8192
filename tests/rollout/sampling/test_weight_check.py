"""Comparing weights with what they have to be, and the canary's verdict."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from rollout.sampling.weight_check import (
    IN_DOUBT_ADVICE,
    Canary,
    WeightMismatchError,
    canary_tolerance,
    differences,
    digest,
    facts_of,
)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.standard_normal((3, 4)).astype(np.float32),
        "b": rng.standard_normal(5).astype(np.float32),
        "scalar": np.array(2.0, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


def problems(arrived: dict[str, np.ndarray], checksums: bool = True) -> list[str]:
    return differences(facts_of(weights(), checksums), facts_of(arrived, checksums).items())


def test_equal_weights_have_no_differences_whatever_their_order_and_layout() -> None:
    arrived = dict(reversed(weights().items()))
    arrived["a"] = np.asfortranarray(arrived["a"])
    assert problems(arrived) == []
    assert digest(facts_of(arrived)) == digest(facts_of(weights()))


@pytest.mark.parametrize("bit", range(0, 12 * 32, 7))
def test_one_flipped_bit_is_found(bit: int) -> None:
    arrived = weights()
    arrived["a"].reshape(-1).view(np.uint8)[bit // 8] ^= 1 << bit % 8
    (problem,) = problems(arrived)
    assert problem.startswith("a: expected float32 [3, 4] with checksum ")
    assert digest(facts_of(arrived)) != digest(facts_of(weights()))
    assert problems(arrived, checksums=False) == []


def test_missing_extra_reshaped_and_converted_tensors_are_found_without_checksums() -> None:
    arrived = weights()
    arrived["c"] = arrived.pop("b")
    arrived["a"] = arrived["a"].reshape(4, 3)
    arrived["scalar"] = arrived["scalar"].astype(np.float16)
    assert problems(arrived, checksums=False) == [
        "b: missing",
        "c: not expected",
        "a: expected float32 [3, 4], found float32 [4, 3]",
        "scalar: expected float32 [], found float16 []",
    ]


def test_the_message_names_worker_version_and_the_first_tensors_and_survives_pickling() -> None:
    error = WeightMismatchError("rollout-1", 7, [f"w{i}: missing" for i in range(8)], IN_DOUBT_ADVICE)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert str(error).startswith("weight version 7 is not what rollout-1 holds: w0: missing; w1: missing; ")
    assert "w4: missing; and 3 more. What it samples from cannot be trusted" in str(error)
    assert "w5" not in str(error)


def test_the_canary_accepts_what_is_within_its_tolerance() -> None:
    canary = Canary((1, 2, 3), 0.01)
    assert canary.check("rollout-0", 1, [0.0, -1.0, -2.0], [0.0, -1.005, -2.0]) == pytest.approx(0.005)


@pytest.mark.parametrize("found", [-1.02, float("nan"), float("-inf")])
def test_the_canary_refuses_what_is_beyond(found: float) -> None:
    with pytest.raises(WeightMismatchError, match=r"rollout-0.*the canary \(3 tokens\).*canary_tolerance is 0.01"):
        Canary((1, 2, 3), 0.01).check("rollout-0", 1, [0.0, -1.0, -2.0], [0.0, found, -2.0])


def test_a_canary_has_two_tokens_or_more_and_is_cut() -> None:
    assert len(Canary(tuple(range(1000)), 0.1).token_ids) == 64
    with pytest.raises(ValueError, match="two tokens"):
        Canary((1,), 0.1)
    with pytest.raises(ValueError, match="gave 2 log-probabilities for a canary of 3"):
        Canary((1, 2, 3), 0.1).check("rollout-0", 1, [0.0] * 3, [0.0] * 2)


def test_the_tolerance_follows_the_coarser_number_format() -> None:
    assert canary_tolerance("float32", "float32") < canary_tolerance("bfloat16", "float32")
    assert canary_tolerance("float32", "bfloat16") == canary_tolerance("float16", "float32")


def test_with_16_bits_the_limit_of_the_mean_comes_from_equal_weights() -> None:
    canary = Canary(tuple(range(9)), 0.5, learns=True)
    expected = [0.0] + [-1.0] * 8
    rounded, one_off = [0.0] + [-1.01, -0.99] * 4, [0.0, -1.3] + [-1.0] * 7
    old = [0.0] + [-1.05] * 8
    assert canary.check("rollout-0", 1, expected, old) == pytest.approx(0.05)  # nothing is known yet
    canary.learn(expected, [expected, rounded])
    assert canary.mean_tolerance == pytest.approx(0.04)
    assert not canary.needs_scale
    assert canary.check("rollout-0", 2, expected, one_off) == pytest.approx(0.3)
    with pytest.raises(WeightMismatchError, match=r"by 0.05 nats on average, more than the 0.04 that rounding"):
        canary.check("rollout-0", 2, expected, old)
    canary.learn(expected, [old])  # once only
    assert canary.mean_tolerance == pytest.approx(0.04)


def test_a_mean_that_is_next_to_nothing_is_always_rounding_and_a_fixed_limit_learns_nothing() -> None:
    canary = Canary((1, 2, 3), 0.5, learns=True)
    canary.learn([0.0, -1.0, -2.0], [[0.0, -1.0, -2.0]])
    assert canary.mean_tolerance == 0.005
    fixed = Canary((1, 2, 3), 0.5)
    fixed.learn([0.0, -1.0, -2.0], [[0.0, -1.0, -2.0]])
    assert fixed.mean_tolerance is None
