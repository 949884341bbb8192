"""Responses behind other prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learner.batch import check_trainable, collate
from learner.update.contrast import mismatched
from rollout.trajectory import ScoredTrajectory
from tests.learner.plain_learner import random_samples


def parts(sample: ScoredTrajectory) -> tuple[tuple[int, ...], tuple[int, ...]]:
    t = sample.trajectory
    cut = t.action_mask.index(True)
    return t.token_ids[:cut], t.token_ids[cut:]


@pytest.mark.parametrize("number", [5, 8, 13])
def test_prompt_of_one_and_response_of_another_group(number: int) -> None:
    samples = random_samples(number)
    found = mismatched(samples)
    assert len(found) == number
    groups = {parts(s)[1]: s.group_id for s in samples}
    for sample, other in zip(samples, found, strict=True):
        check_trainable(other)
        (prompt, response), (same, foreign) = parts(sample), parts(other)
        assert same == prompt
        sources = [group for text, group in groups.items() if text[: len(foreign)] == foreign]
        assert sources and sample.group_id not in sources
        assert len(foreign) <= len(response)  # the plan of micro-batches still fits
        assert sum(other.trajectory.action_mask) == len(foreign)
    assert mismatched(samples) == found


def test_observations_stay_observations() -> None:
    samples = random_samples(8)
    turns = (False, False, True, True, False, False, True)
    two_turns = replace(
        samples[5].trajectory, token_ids=tuple(range(10, 17)), action_mask=turns, rollout_logprobs=(0.0,) * 7
    )
    samples = [*samples[:5], replace(samples[5], trajectory=two_turns), *samples[6:]]
    found = mismatched(samples)
    partner = next(s for s in found if s.trajectory.token_ids[-1] in range(12, 17) and 14 in s.trajectory.token_ids)
    cut = parts(partner)[0]
    assert partner.trajectory.action_mask[len(cut) :] == turns[2:][: len(partner.trajectory.token_ids) - len(cut)]


def test_one_group_has_no_partner() -> None:
    samples = random_samples(4)
    found = mismatched(samples)
    assert not collate(found).action_mask.any()
    assert torch.equal(collate(found).token_ids, collate(samples).token_ids)
