"""Parts of the evidence correction by hand: when rates count as known, what is reported, what the network starts as."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from learner.algorithms.corrections.evidence.channel import Channel
from learner.algorithms.corrections.evidence.content import EndStateProjection
from learner.algorithms.corrections.evidence.correction import MIN_GOLD, Evidence
from learner.algorithms.corrections.evidence.outcome_model import NUM_SIGNALS, OutcomeModel
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from tests.learner.algorithms.corrections.evidence.simulated import Simulated, responses
from tests.learner.random_batches import make_batch


def step(correction: Evidence, batch: Simulated) -> dict[str, float]:
    _, metrics = correction._update(
        batch.seeds, batch.signals, batch.states, batch.scores, batch.gold, batch.prompts, batch.answers
    )
    return metrics


@pytest.mark.parametrize(
    ("num_gold", "youden_j", "youden_std", "known"),
    [
        (0, 0.5, 0.2, True),
        (0, 0.3, 0.2, False),  # could be the opposite
        (0, -0.9, 0.01, False),
        (MIN_GOLD - 1, 0.3, 0.2, False),
        (MIN_GOLD, 0.3, 0.2, True),
        (MIN_GOLD, -0.3, 0.2, True),
        (MIN_GOLD, 0.9, 0.26, False),
        (0, 0.9, math.inf, False),
    ],
)
def test_when_error_rates_count_as_known(num_gold: int, youden_j: float, youden_std: float, known: bool) -> None:
    correction = Evidence(Evidence.Config())
    keys = np.arange(num_gold)
    rows = correction.cells.rows(keys, keys, 0)
    correction.cells.count(rows, np.zeros(num_gold), np.ones(num_gold))
    assert not correction.is_identified
    rate = (1.0 - youden_j) / 2
    correction.channel = Channel(rate, rate, (1.0, 1.0), 0.0, youden_std)
    assert correction.is_identified is known


def test_what_is_reported_of_the_prior_is_that_of_networks_that_have_not_seen_the_prompt() -> None:
    correction = Evidence(Evidence.Config(num_batches=2))
    step(correction, responses(64, 0, (0.3, 0.3), 0.6))
    model, later = copy.deepcopy(correction.model), responses(64, 1, (0.3, 0.3), 0.6)
    assert model.is_trained
    metrics = step(correction, later)
    of_views = model.logits(correction.window.inputs[-64:], later.prompts).double()
    logits = torch.stack([of_views[:, :2].mean(dim=1), of_views[:, 2]], dim=1)  # by signals, and by content too
    channel = correction.channel
    assert channel is not None
    both = channel.slopes[0] * logits[:, 0] + channel.slopes[1] * logits[:, 1]
    prior = 1.0 / (1.0 + (-(both + channel.intercept)).exp())
    asked = ~later.gold.isnan()
    expected = float(((prior - later.gold)[asked] ** 2).mean())
    assert metrics["correction/evidence_prior_brier"] == pytest.approx(expected, rel=1e-9)
    assert float(logits.std(dim=0).min()) > 0.0


def test_metrics_of_a_first_batch_and_a_state_without_rates() -> None:
    correction, batch = Evidence(Evidence.Config()), make_batch(0)
    batch = CorrectedRewards(batch).with_scores((batch.scores > 0.5).double(), {}).batch
    batch.gold_labels[:3] = 1.0 - batch.scores[:3]
    zeros = torch.zeros_like(batch.rewards)
    found = correction(
        CorrectedRewards(batch),
        OldOutputs(batch.rollout_logprobs, zeros, None, zeros, torch.rand(len(batch), 5)),
        SingleProcess(),
    )
    values = to_floats(found.metrics)
    assert values["correction/evidence_cells"] == 8.0
    assert values["correction/evidence_gold"] == 3.0
    assert values["correction/evidence_known_share"] == pytest.approx(3 / 8)
    assert values["correction/evidence_change"] == pytest.approx(3 / 8)  # the known ones, which were all wrong
    assert values["correction/evidence_identified"] == 0.0
    other = Evidence(Evidence.Config())
    other.load_state_dict(correction.state_dict())
    assert other.channel is None and other.num_updates == 1 and len(other.cells) == 8


def test_starting_weights_are_uniform_within_one_over_the_root_of_the_inputs() -> None:
    model = OutcomeModel(4, (NUM_SIGNALS,), 1e-3, 0.1, 0.2, seed=5)
    for name in ("weight_in", "weight_out"):
        weights = model.parameters[name].detach() * model.parameters[name].shape[1] ** 0.5
        assert float(weights.abs().max()) <= 1.0
        assert float(weights.std()) == pytest.approx(3**-0.5, rel=0.1)
        assert abs(float(weights.mean())) < 0.15


def test_a_row_of_no_weight_teaches_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    inputs, keys = torch.randn(40, NUM_SIGNALS, generator=g), torch.arange(40)
    weights = torch.ones(40)
    weights[::4] = 0.0
    said = []
    for evidence_of_those in (3.0, -3.0):
        evidence = torch.randn(40, generator=torch.Generator().manual_seed(1))
        evidence[::4] = evidence_of_those
        model = OutcomeModel(2, (10, NUM_SIGNALS), 1e-2, 0.1, 0.2, seed=0)
        model.train(inputs, keys, evidence, weights, 3, 0)
        said.append(model.logits(inputs, keys))
    assert said[0].isfinite().all()
    assert torch.equal(said[0], said[1])


def test_a_view_sees_its_own_inputs_only() -> None:
    g = torch.Generator().manual_seed(0)
    model = OutcomeModel(2, (10, NUM_SIGNALS), 1e-2, 0.1, 0.0, seed=0)
    inputs, keys, evidence = torch.randn(64, NUM_SIGNALS, generator=g), torch.arange(64), torch.randn(64, generator=g)
    model.train(inputs, keys, evidence, torch.ones(64), 4, 0)
    changed = inputs.clone()
    changed[:, 10:] += 1.0
    before, after = model.logits(inputs, keys), model.logits(changed, keys)
    assert before.shape == (64, 2)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_directions_of_the_end_state_stay_and_no_number_outweighs_the_others() -> None:
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(50, 12, generator=g), torch.randn(7, 12, generator=g)
    first[:, 3] *= 1e4
    project = EndStateProjection(4, seed=1)
    at_first = project(first)
    assert at_first.shape == (50, 4)
    directions = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)) / math.sqrt(12)
    torch.testing.assert_close(project(second), (second - first.mean(0)) / first.std(0) @ directions)
    other = EndStateProjection(4, seed=1)
    other.load_state_dict(project.state_dict())
    assert torch.equal(other(second), project(second))
    assert torch.equal(project(first), at_first)
