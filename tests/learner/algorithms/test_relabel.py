"""Online label refinement: when the majority's answer becomes the label, by numpy and by hand."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learner.algorithms.base import Algorithm
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.relabel import Visit, accepted, slope_of
from learner.algorithms.records import CorrectedRewards
from learner.maths.collective import Collective, SingleProcess
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import make_batch, make_old, take


@given(shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=9))
@hypothesis_settings(max_examples=30, deadline=None)
def test_slope_is_that_of_a_straight_line(shares: list[float]) -> None:
    assert slope_of(shares) == pytest.approx(float(np.polyfit(range(len(shares)), shares, 1)[0]), abs=1e-9)
    assert slope_of(shares[:1]) == 0.0


@pytest.mark.parametrize(
    ("history", "label"),
    [
        ([(5, 0.2), (5, 0.3), (5, 0.4), (5, 0.5)], 5),
        ([(5, 0.2), (5, 0.3), (5, 0.4)], None),  # too early
        ([(5, 0.5), (5, 0.4), (5, 0.3), (5, 0.2)], None),  # falling
        ([(5, 0.2), (5, 0.22), (5, 0.24), (5, 0.26)], None),  # rising too slowly
        ([(5, 0.2), (5, 0.3), (5, 0.4), (7, 0.5)], None),  # not what it was
        ([(5, 0.2), (7, 0.3), (7, 0.4), (7, 0.5)], 7),
        ([(5, 0.2), (7, 0.3), (5, 0.4), (7, 0.5)], None),  # as often
    ],
)
def test_when_a_majority_is_accepted(history: Sequence[Visit], label: int | None) -> None:
    assert accepted(history, 3, 0.05) == label


def visit(update: int, answers: list[int]) -> Any:
    """Eight samples of one prompt that came before, and of one that never will again."""
    batch = make_batch(update)
    keys = torch.tensor([11] * 4 + [100 + update] * 4)
    scores = torch.tensor([float(a == 9) for a in answers] + [1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    batch = replace(batch, prompt_keys=keys, answer_keys=torch.tensor([*answers, 3, 4, 5, 0]))
    return CorrectedRewards(batch).with_scores(scores, {}).batch


RISING = [[5, 9, 6, 7], [5, 5, 9, 6], [5, 5, 5, 9], [5, 5, 5, 9], [9, 5, 5, 5]]
"""The label is 9, and the policy comes to agree on 5."""


def scores_after(algorithm: Algorithm, updates: range, world: Collective, rows: torch.Tensor) -> list[list[float]]:
    found = []
    for update in updates:
        batch = visit(update, RISING[update])
        part = take(make_old(algorithm, batch, 1), rows)
        found.append(algorithm.correct_rewards(batch.rows(rows), part, world).batch.scores.tolist())
    return found


def test_a_wrong_label_is_replaced_over_ranks_and_after_a_restart() -> None:
    everyone = torch.arange(8)
    options = {"reward_correction": ["relabel"]}
    whole = build_algorithm("grpo", options)
    found = scores_after(whole, range(5), SingleProcess(), everyone)
    for update in range(3):
        assert found[update] == visit(update, RISING[update]).scores.tolist()
    assert found[3][:4] == [1.0, 1.0, 1.0, 0.0] and found[4][:4] == [0.0, 1.0, 1.0, 1.0]
    assert all(scores[4:] == [1.0, 0.0, 0.0, 1.0] for scores in found)  # a prompt that was never seen before
    first = build_algorithm("grpo", options)
    scores_after(first, range(3), SingleProcess(), everyone)
    resumed = build_algorithm("grpo", options)
    resumed.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert scores_after(resumed, range(3, 5), SingleProcess(), everyone) == found[3:]
    order = list(range(8))
    random.Random(0).shuffle(order)
    split = [torch.tensor(order[:3]), torch.tensor(order[3:])]
    parts = on_ranks(
        2, lambda world: scores_after(build_algorithm("grpo", options), range(5), world, split[world.rank])
    )
    for rows, part in zip(split, parts, strict=True):
        assert part == [[scores[int(row)] for row in rows] for scores in found]
