"""Checkpoints of other models are told from shapes, before anything is started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.config.run_config import RunConfig
from cluster.run.resume import ResumePoint, refuse_foreign_point
from learner.algorithms.catalogue import build_algorithm
from learner.checkpoint.foreign import refuse_foreign
from learner.config import ModelConfig
from learner.storage.manifest import CheckpointError
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import save_checkpoint

CRITIC = {"num_heads": 2, "num_quantiles": 32}


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with another width."""
    folder = tmp_path_factory.mktemp("other")
    config = AutoConfig.from_pretrained(tiny_model)
    config.intermediate_size = 96
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_model: Path, make_learner: Callable[..., Learner]) -> Path:
    folder = tmp_path / "step-3"
    save_checkpoint(make_learner("dvpo", {"critic": CRITIC}), folder, tiny_model)
    return folder


def refuse(checkpoint: Path, model: Path, algorithm: str = "dvpo", stage: int = 0, **options: Any) -> None:
    built = build_algorithm(algorithm, {"critic": CRITIC, **options} if algorithm == "dvpo" else {}, "algorithm")
    refuse_foreign(checkpoint, ModelConfig(path=str(model)), built, stage)


def test_its_own_passes(checkpoint: Path, tiny_model: Path) -> None:
    stage = json.loads((checkpoint / "manifest.json").read_text())["zero_stage"]
    refuse(checkpoint, tiny_model, stage=stage)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("model", r"of another policy: \d+ of \d+ weights differ, model.*has the shape .*Give the model"),
        ("critic", "its critic has the shape .*'num_quantiles': 32.*the configured one .*'num_quantiles': 16"),
        ("no critic", "it has a critic, which does not fit"),
        ("stage", "saved with ZeRO stage"),
    ],
)
def test_a_foreign_one_is_refused_at_once(
    case: str, message: str, checkpoint: Path, tiny_model: Path, other_model: Path
) -> None:
    stage = json.loads((checkpoint / "manifest.json").read_text())["zero_stage"]
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match=message):
        if case == "model":
            refuse(checkpoint, other_model, stage=stage)
        elif case == "critic":
            refuse(checkpoint, tiny_model, stage=stage, critic={"num_heads": 2, "num_quantiles": 16})
        elif case == "no critic":
            refuse(checkpoint, tiny_model, "grpo", stage)
        else:
            refuse(checkpoint, tiny_model, stage=stage + 1)
    assert time.monotonic() - begin < 10.0


def test_steps_that_the_ledger_does_not_know(checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The checkpoint fits, but it is of another run."""
    stage = json.loads((checkpoint / "manifest.json").read_text())["zero_stage"]
    algorithm = {"preset": "dvpo", "critic": CRITIC}
    model, data = {"path": str(tiny_model)}, {"task": {"type": "chain"}}
    config = RunConfig.model_validate(
        {"model": model, "data": data, "algorithm": algorithm, "learner": {"zero_stage": stage}}
    )
    with pytest.raises(UserError, match=r"knows 0 trained steps and cannot go on from .*step-3.*another run"):
        refuse_foreign_point(config, tmp_path / "ledger.sqlite", ResumePoint(checkpoint, 3))
