"""Random streams by name: no two uses share seeds, and their numbers do not go together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.flow import flow_times
from learner.algorithms.streams import row_generators, row_uniforms, stream_seeds
from learner.maths.collective import SingleProcess
from learner.models.bottleneck import BottleneckHeads
from tests.learner.random_batches import make_batch, make_old

NAMES = ("mixture", "head_bootstrap", "bottleneck", "flow_times", "coverage")
SEEDS = torch.arange(200, dtype=torch.int64) * 7919


def test_seeds_differ_between_names_steps_and_rows_in_the_bits_that_count() -> None:
    found = [stream_seeds(SEEDS, name, step) for name in NAMES for step in range(8)]
    every = torch.stack(found)
    assert (every >= 0).all()
    assert len(set(every.ravel().tolist())) == every.numel()
    low = [seed & 0xFFFFFFFF for seed in every.ravel().tolist()]
    assert len(low) - len(set(low)) <= 1  # 8,000 draws of 2^32: a pair in common once in 130 tests
    assert torch.equal(stream_seeds(SEEDS, "mixture"), stream_seeds(SEEDS, "mixture"))
    assert torch.equal(stream_seeds(SEEDS[[4, 1]], "mixture"), stream_seeds(SEEDS, "mixture")[[4, 1]])


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(NAMES, 2)))
def test_the_numbers_of_two_streams_do_not_go_together(one: str, other: str) -> None:
    """200 rows of 50 numbers: the correlation is within four of its standard deviations, at every step."""
    draws = {
        (name, step): torch.stack([torch.rand(50, generator=g) for g in row_generators(SEEDS, name, step)]).ravel()
        for name in (one, other)
        for step in range(3)
    }
    for first, second in itertools.combinations(draws.values(), 2):
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 4.5 / 10_000**0.5


def test_uniform_numbers_of_a_row() -> None:
    found = row_uniforms(SEEDS, "coverage", 5)
    assert found.shape == (200, 5) and float(found.min()) >= 0.0 and float(found.max()) < 1.0
    assert torch.equal(found, row_uniforms(SEEDS, "coverage", 5))
    assert float(found.mean()) == pytest.approx(0.5, abs=0.04)
    assert row_uniforms(SEEDS[:0], "coverage", 5).shape == (0, 5)


def test_the_pieces_of_a_method_seed_no_generator_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixture, head bootstrap, coverage, the bottleneck's noise and the flow's times, as updates draw them."""
    seen: list[int] = []

    class Recording(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            seen.append(seed)
            return super().manual_seed(seed)

    options: dict[str, Any] = {"critic": {"num_heads": 2, "num_quantiles": 40}, "head_bootstrap_p": 0.5, "ib_dim": 4}
    algorithm = build_algorithm("vrpo-dvpo", options)
    assert isinstance(algorithm, ActorCritic)
    batch = make_batch(0)
    old = make_old(algorithm, batch, 1)
    heads = BottleneckHeads(8, 4, algorithm.critic_config, seed=0)
    bottleneck = algorithm.side.regularisers[0]
    monkeypatch.setattr(torch, "Generator", Recording)
    algorithm.side.target(algorithm.old_critic(batch.rewards, old.critic, batch, SingleProcess()))  # type: ignore[arg-type]
    drawn = [len(seen)]
    algorithm.side._head_mask(type("View", (), {"batch": batch, "returns": batch.rewards})())
    row_uniforms(batch.sample_seeds, "coverage", 3)
    drawn.append(len(seen))
    for step in range(4):
        inputs = bottleneck.model_inputs(batch, None, step)
        heads.noise(inputs["noise_seeds"], batch.action_mask)
        flow_times(batch, step)
    drawn.append(len(seen))
    rows = len(batch)
    assert drawn == [rows, 3 * rows, 11 * rows]
    assert len(set(seen)) == len(seen)
