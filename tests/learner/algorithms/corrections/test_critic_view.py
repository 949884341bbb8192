"""What the critic is asked by corrections: the state it is asked in, and how many quantiles that takes."""

from __future__ import annotations

import re

import pytest
import torch

from learner.algorithms.corrections.critic_view import predicted_reward, too_few_quantiles
from learner.algorithms.records import OldOutputs
from learner.models.spec import CriticConfig, CriticOutput
from tests.learner.random_batches import make_batch

F64 = torch.float64


def test_the_state_is_that_before_the_last_action_token() -> None:
    """Rows whose last action is at token 3, at token 0, and nowhere: the last one is answered with token 0."""
    batch = make_batch(0, rows=3, seq=7)
    batch.action_mask[:] = False
    batch.action_mask[0, [1, 3]] = batch.action_mask[1, 0] = True
    law = torch.arange(7, dtype=F64)[None, :, None, None] + torch.tensor([[0.0, 0.5], [0.4, 0.1]], dtype=F64)
    law = law.expand(3, 7, 2, 2)
    old = OldOutputs(batch.rollout_logprobs, None, CriticOutput(law, torch.zeros(3, 7)))
    quantiles, earned = predicted_reward(old, batch)
    assert quantiles.tolist() == [
        pytest.approx([last + 0.05, last + 0.45]) for last in (3, 0, 0)
    ]  # the second head is sorted before the mean
    assert earned.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="needs the old critic's output"):
        predicted_reward(OldOutputs(batch.rollout_logprobs, None, None), batch)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05, 0.07, 0.2])
def test_the_least_number_of_quantiles_is_the_one_it_names(share: float) -> None:
    """Levels are (2i - 1) / 2M, so the lowest of M quantiles is at 1 / 2M."""
    message = too_few_quantiles(CriticConfig(num_quantiles=2), share)
    named = re.search(rf"the quantile at {share:g}, for which critic\.num_quantiles must be at least (\d+)$", message)
    assert named is not None
    least = int(named[1])
    assert 0.5 / least <= share + 1e-12 and 0.5 / (least - 1) > share
    assert too_few_quantiles(CriticConfig(num_quantiles=least), share) == ""
    assert too_few_quantiles(CriticConfig(num_quantiles=least - 1), share).endswith(f"at least {least}")


def test_one_quantile_tells_nothing_and_two_tell_the_middle() -> None:
    assert too_few_quantiles(CriticConfig(num_quantiles=1), 0.5).startswith("needs a critic with quantiles")
    assert too_few_quantiles(CriticConfig(num_quantiles=2), 0.5) == ""
