"""What the examples show works from outside the project: one file each, named in a configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.metrics import to_floats
from rollout.component import UserError
from tests.learner.plain_learner import plain_learner, random_samples

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MAX_LINES = 90
SMALL = {"critic": {"num_heads": 2, "num_quantiles": 20}}
TERM = {"type": "my_term:EnergyScore", "coef": 0.5}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("my_*.py")), ids=lambda path: path.stem)
def test_an_idea_is_one_short_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_a_term_of_ones_own_is_a_summand_of_the_critics_loss() -> None:
    """Against the definition over pairs, for each head, and weighed beside a built-in term."""
    algorithm = build_algorithm("dvpo", {**SMALL, "terms": ["quantile_huber", TERM]})
    plain = build_algorithm("dvpo", {**SMALL, "terms": ["quantile_huber"]})
    assert isinstance(algorithm, ActorCritic) and isinstance(plain, ActorCritic)
    g = torch.Generator().manual_seed(0)
    q = torch.randn(7, 2, 20, generator=g, dtype=torch.float64).sort(-1).values
    y = torch.randn(7, 9, generator=g, dtype=torch.float64).sort(-1).values
    losses, metrics = algorithm.side.token_losses(TokenView(q, y))
    others, _ = plain.side.token_losses(TokenView(q, y))
    for token in range(7):
        score = 0.0
        for head in q[token]:
            apart = sum(abs(float(a - b)) for a in head for b in y[token]) / (20 * 9)
            within = sum(abs(float(a - b)) for a in head for b in head) / (20 * 20)
            score += (apart - within / 2) / 2
        assert float(losses[token] - others[token]) == pytest.approx(0.5 * score, rel=1e-9)
    assert to_floats(metrics)["critic/energy_score_weighted"] == pytest.approx(float((losses - others).mean()))


def test_a_term_of_ones_own_trains(tiny_model: Path) -> None:
    learner = plain_learner(tiny_model, "dvpo", {**SMALL, "terms": [TERM]})
    assert learner.critic is not None
    before = {name: weight.clone() for name, weight in learner.critic.full_weights()}
    metrics = to_floats(learner.update(random_samples(8), 0).metrics)
    assert math.isfinite(metrics["critic/energy_score"]) and metrics["critic/grad_norm"] > 0.0
    assert any(not torch.equal(weight, before[name]) for name, weight in learner.critic.full_weights())


def test_its_mistakes_are_told_like_those_of_built_in_terms() -> None:
    with pytest.raises(UserError, match=r"algorithm\.terms\.0\.max_atoms: must be greater than or equal to 1"):
        build_algorithm("dvpo", {**SMALL, "terms": [{**TERM, "max_atoms": 0}]})
    with pytest.raises(UserError, match=r"algorithm\.terms\.0: my_term:EnergyScore needs sorted quantiles"):
        build_algorithm("dvpo", {"critic": {"monotonicity": "none"}, "terms": [TERM]})
