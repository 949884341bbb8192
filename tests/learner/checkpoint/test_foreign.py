"""Checkpoints of other models are told from shapes, before anything is started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.config.run_config import RunConfig
from cluster.run.resume import ResumePoint, refuse_foreign_point
from learner.algorithms.catalogue import build_algorithm
from learner.checkpoint.foreign import refuse_foreign
from learner.config import LoraOptions, ModelConfig
from learner.storage.manifest import CheckpointError
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import plain_learner, save_checkpoint

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


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("same", ""),
        ("none", r"the run that wrote it trained adapters; go on with model\.lora"),
        ("rank", r"its adapters were made with model\.lora\.rank 4, and now it is 8; set it back"),
        ("targets", r"made with model\.lora\.target_modules \['down_proj', .*now it is \['q_proj'\]"),
        ("weights", r"its adapters are of other frozen weights than those of model\.path"),
    ],
)
def test_adapters_belong_to_frozen_weights(case: str, message: str, tiny_model: Path, tmp_path: Path) -> None:
    """Their checkpoint does not hold these, so another model of the same shape would be taken for them."""
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    lora, folder, path = LoraOptions(rank=4, merged_checkpoints=False), tmp_path / "step-3", tiny_model
    learner = plain_learner(tiny_model, "grpo", model=ModelConfig(path=str(tiny_model), lora=lora))
    save_checkpoint(learner, folder, tiny_model, lora=lora)
    now = {
        "none": None,
        "rank": lora.model_copy(update={"rank": 8}),
        "targets": lora.model_copy(update={"target_modules": ["q_proj"]}),
    }.get(case, lora)
    if case == "weights":
        path = tmp_path / "moved"
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.get_parameter("model.layers.1.mlp.up_proj.weight").data.mul_(1.001)
        model.save_pretrained(path)
    algorithm, stage = build_algorithm("grpo", {}, "algorithm"), learner.settings.config.zero_stage
    with pytest.raises(CheckpointError, match=message) if message else nullcontext():
        refuse_foreign(folder, ModelConfig(path=str(path), lora=now), algorithm, stage)


def test_adapters_are_not_gone_on_from_whole_weights(checkpoint: Path, tiny_model: Path) -> None:
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    stage = json.loads((checkpoint / "manifest.json").read_text())["zero_stage"]
    model, built = ModelConfig(path=str(tiny_model), lora=LoraOptions()), build_algorithm("dvpo", {"critic": CRITIC})
    with pytest.raises(CheckpointError, match=r"that wrote it trained whole weights; go on with no model\.lora"):
        refuse_foreign(checkpoint, model, built, stage)


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
