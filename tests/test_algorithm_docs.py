"""docs/algorithms.md has a row for every preset, and its worked example trains."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections import CORRECTIONS
from learner.algorithms.objectives import OBJECTIVES
from learner.algorithms.presets import PRESETS
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from tests.learner.oracles import on_ranks
from tests.learner.plain_learner import plain_learner, random_samples
from tests.learner.random_batches import make_batch, make_old, take

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if (match := re.match(r"\| `([a-z0-9-]+)` \|", line))
}
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_row_with_its_file_and_source(preset: str) -> None:
    assert preset in ROWS, f"docs/algorithms.md has no row for the preset {preset!r}"
    _, change, files, source, origin, chosen = ROWS[preset]
    assert change and origin and chosen
    paths = re.findall(r"`([^`]+)`", files)
    assert paths and all((ROOT / "learner" / path).is_file() for path in paths)
    assert set(ARXIV.findall(PRESETS[preset].source)) <= set(ARXIV.findall(source))


def test_no_row_without_a_preset_and_every_piece_is_named() -> None:
    assert set(ROWS) - set(PRESETS) <= set(CORRECTIONS)
    assert [name for name in (*CORRECTIONS, *OBJECTIVES) if f"`{name}`" not in TEXT] == []


@pytest.fixture
def my_algo(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return "my_algo:MyAlgorithm"


def test_the_example_builds_and_does_one_update(my_algo: str, tiny_model: Path) -> None:
    learner = plain_learner(tiny_model, my_algo, {"softness": 0.25, "reward_correction": "percentile_clip"})
    before = dict(learner.policy.full_weights())
    metrics = to_floats(learner.update(random_samples(8), 0).metrics)
    assert metrics["policy/grad_norm"] > 0.0 and math.isfinite(metrics["policy/loss"])
    assert 0.0 < metrics["advantage/levelled_frac"] < 1.0
    assert any(not torch.equal(weight, before[name]) for name, weight in learner.policy.full_weights())


def test_the_example_is_right_on_two_ranks(my_algo: str) -> None:
    batch, algorithm = make_batch(0), build_algorithm(my_algo, {"softness": 0.5})
    old = make_old(algorithm, batch, 1)
    whole = algorithm.estimate(batch, old, SingleProcess()).advantages
    for row in range(8):
        mates = batch.scores[batch.group_ids == batch.group_ids[row]].sort().values
        expected = math.tanh(2.0 * float(batch.scores[row] - (mates[1] + mates[2]) / 2))
        assert whole[row][batch.action_mask[row]].tolist() == pytest.approx(
            [expected] * int(batch.action_mask[row].sum())
        )
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]
    parts = on_ranks(2, lambda w: algorithm.estimate(batch.rows(rows[w.rank]), take(old, rows[w.rank]), w).advantages)
    for part, mine in zip(parts, rows, strict=True):
        torch.testing.assert_close(part, whole[mine])


def test_the_example_documents_itself_as_the_docs_name_it(my_algo: str) -> None:
    assert my_algo in TEXT and "examples/my_algo.py" in TEXT
