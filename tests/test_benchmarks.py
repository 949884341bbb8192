"""Figures that scripts of benchmarks/ work out themselves, against the slow way."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.value_model import Judged, auc, auc_within

Responses = st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3), st.booleans()), min_size=1, max_size=20)


def by_pairs(rows: list[tuple[int, int, bool]], same_prompt: bool) -> float:
    """The share of pairs of a right and a wrong response in which the right one is judged better; ties are half."""
    shares = [
        1.0 if right[1] > wrong[1] else 0.5 if right[1] == wrong[1] else 0.0
        for right, wrong in itertools.permutations(rows, 2)
        if right[2] and not wrong[2] and (not same_prompt or right[0] == wrong[0])
    ]
    return float(np.mean(shares)) if shares else float("nan")


@given(Responses)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(rows: list[tuple[int, int, bool]]) -> None:
    prompts, logits, truth = (np.array(column) for column in zip(*rows, strict=True))
    judged = Judged(
        prompts=prompts, logits=logits.astype(float), mean_logprobs=np.zeros(len(rows)), truth=truth.astype(float)
    )
    np.testing.assert_allclose(auc(judged.logits, judged.truth), by_pairs(rows, False))
    np.testing.assert_allclose(auc_within(judged), by_pairs(rows, True))
