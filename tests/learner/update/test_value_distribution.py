"""The value distribution of a long batch: how much of it is there at once, and that parts give what the whole gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.live_tensors import LiveTensors
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import OldOutputs
from learner.batch import TrainBatch
from learner.config import LearnerConfig
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from learner.models.kept_values import KeptOutput, KeptValues
from learner.models.spec import CriticOutput
from learner.update.learner import Learner
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import make_batch, make_old

MakeLearner = Callable[..., Learner]
LAW = {"critic": {"num_heads": 3, "num_quantiles": 40}}
SMALL = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, lr_warmup_frac=0.0, micro_batch_tokens=30)
BIG = 200
"""Quantiles, so that a distribution is far larger than all else of a batch."""


def in_parts(output: CriticOutput, batch: TrainBatch, rows: int) -> KeptOutput:
    """The same output as micro-batches of some rows would have left it."""
    kept, mask = KeptValues(batch.rewards.shape), batch.action_mask
    for first in range(0, len(batch), rows):
        length = int(batch.lengths[first : first + rows].max())
        place = (slice(first, min(first + rows, len(batch))), slice(length))
        kept.add(place, mask[place], output.quantile_values[place][mask[place]])
    columns = {"raw_crossing_frac": output.raw_crossing_frac, **output.optional()}
    return KeptOutput(kept, columns)


def made_up(options: dict[str, Any], rows: int = 8, seq: int = 14) -> tuple[Any, TrainBatch, OldOutputs]:
    algorithm = build_algorithm("dvpo", options)
    batch = make_batch(3, rows=rows, seq=seq, dtype=torch.float32)
    return algorithm, batch, make_old(algorithm, batch, 5)


def test_parts_are_the_whole() -> None:
    _, batch, old = made_up(LAW)
    assert old.critic is not None
    kept = in_parts(old.critic, batch, 3)
    assert [(p[0].start, p[0].stop) for p in kept.places] == [(0, 3), (3, 6), (6, 8)]
    assert torch.equal(kept.quantile_values, old.critic.quantile_values)
    assert (kept.num_heads, kept.num_quantiles) == (3, 40)
    for place in kept.places:
        one, other = kept.cut(place), old.critic.cut(place)
        assert torch.equal(one.quantile_values, other.quantile_values)
        assert one.end_values is not None and other.end_values is not None
        assert torch.equal(one.end_values, other.end_values)
    last = torch.where(batch.action_mask, torch.arange(14), 0).amax(dim=1)
    assert torch.equal(kept.quantiles_at(last), old.critic.quantiles_at(last))
    assert not kept.quantiles_at(torch.zeros_like(last)).any()  # of a token that was not sampled
    with pytest.raises(KeyError, match="kept are rows"):
        kept.kept.at((slice(0, 2), slice(14)))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixture": ("dvpo", LAW),
    "truncated": ("dvpo", {**LAW, "bootstrap_truncated": True, "reward_correction": ["precision"]}),
    "quantile wise": ("dvpo", {**LAW, "target_mode": "quantile_wise"}),
    "sampled returns": ("dvpo", {**LAW, "target_mode": "mc"}),
    "old values": ("dvpo", {**LAW, "value_clip": 0.1, "shape_ref": "old", "shift_form": "batch_hinge"}),
    "worst head": ("robust_bellman", LAW),
    "two steps": ("dfpo", {**LAW, "num_minibatches": 2, "num_epochs": 2}),
    "after the token": ("decoupled-vpo", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_change_no_bit(name: str, make_learner: MakeLearner) -> None:
    preset, options = CASES[name]

    def trained(in_parts: bool) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        learner = make_learner(preset, options, SMALL)
        algorithm: Any = learner.algorithm
        assert algorithm.side.target.by_rows
        algorithm.side.target.by_rows = in_parts
        torch.manual_seed(0)
        metrics = [to_floats(learner.update(random_samples(8, index), index).metrics) for index in range(1)]
        engines = {"policy": learner.policy, "critic": learner.critic}
        named = {f"{n}.{key}": w for n, engine in engines.items() if engine for key, w in engine.full_weights()}
        return named, metrics

    weights, metrics = trained(in_parts=True)
    others, plain = trained(in_parts=False)
    assert metrics[0]["learner/micro_batches"] >= 3
    assert [one == pytest.approx(two, rel=0.0, abs=0.0, nan_ok=True) for one, two in zip(metrics, plain, strict=True)]
    assert [key for key, weight in others.items() if not torch.equal(weights[key], weight)] == []


@pytest.mark.parametrize("mode", [pytest.param("mixture", marks=pytest.mark.slow), "quantile_wise", "mc"])
def test_no_more_than_one_micro_batch_of_it(mode: str) -> None:
    """Beside what is kept: the mean of the heads and the targets of each sampled token, in host memory."""
    algorithm, batch, old = made_up(
        {"critic": {"num_heads": 3, "num_quantiles": BIG}, "target_mode": mode}, rows=64, seq=40
    )
    assert old.critic is not None
    mean = old.critic.quantile_values.mean(dim=2, keepdim=True)
    critic = CriticOutput(mean, old.critic.raw_crossing_frac, old.critic.end_values)
    parts = in_parts(critic, batch, 1)
    one = 40 * BIG * 4
    whole = batch.action_mask.numel() * BIG * 4
    targets = int(batch.action_mask.sum()) * (1 if mode == "mc" else BIG) * 4

    def extra(output: CriticOutput) -> int:
        held = [output.kept.tensors] if isinstance(output, KeptOutput) else [[output.quantile_values]]
        live = LiveTensors(x for tensors in held for x in tensors)
        before = live.now
        with torch.no_grad(), live:
            algorithm.estimate(batch, replace(old, critic=output), SingleProcess())
        return live.peak - before

    before, after = extra(critic), extra(parts)
    assert before > {"mixture": 3, "quantile_wise": 5, "mc": 1.5}[mode] * whole
    assert after - targets < 20 * one < whole / 3  # operations on one micro-batch have their own copies of it
