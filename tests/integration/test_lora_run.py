"""Adapters in a whole run: trained, merged on the way to a real engine, and saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.integration.whole_runs import StartCommand, WriteConfig, read_metrics

peft = pytest.importorskip("peft", reason="the extra 'lora' is not installed")
pytestmark = pytest.mark.slow


def test_a_run_with_adapters(
    tmp_path: Path, tiny_model: Path, start_command: StartCommand, write_config: WriteConfig
) -> None:
    """The engine serves the merged weights of each step, and goes on from adapters alone."""
    config = write_config(
        model={"path": str(tiny_model), "lora": {"rank": 8, "alpha": 16}},
        learner={"policy_lr": 1e-2, "critic_lr": 1e-3},
        training={"num_steps": 2, "max_staleness": 0, "checkpoint_every_steps": 2},
    )
    run_dir = tmp_path / "runs" / "run"
    first = start_command("train", str(config))
    assert first.finish() == 0, first.output
    more = ("--resume", "auto", "--set", "training.num_steps=4", "--set", "model.lora.merged_checkpoints=false")
    second = start_command("train", str(config), *more)
    assert second.finish() == 0, second.output
    steps = read_metrics(run_dir)
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert step["policy/sampler_logprob_gap_max"] < 1e-4, "the engine samples from the merged weights"
        assert step["sync/canary_gap_max"] < 1e-4 and step["policy/grad_norm"] > 0
    assert steps[-1]["policy/kl_to_start"] > 1e-4
    ids = torch.arange(6, 30)[None]
    with torch.no_grad():
        start = AutoModelForCausalLM.from_pretrained(tiny_model).eval()(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(run_dir / "checkpoints" / "step-2" / "policy").eval()
        theirs = {
            step: peft.PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(tiny_model), run_dir / "checkpoints" / step / "adapter"
            ).eval()
            for step in ("step-2", "step-4")
        }
        torch.testing.assert_close(theirs["step-2"](input_ids=ids).logits, merged(input_ids=ids).logits)
        moved = [(model(input_ids=ids).logits - start).abs().max().item() for model in theirs.values()]
    assert 1e-2 < moved[0] < moved[1]
    assert not (run_dir / "checkpoints" / "step-4" / "policy").exists()
    refused = start_command("eval", str(run_dir / "checkpoints" / "step-4"), "--config", str(config))
    assert refused.finish() == 2 and "holds adapters without a whole policy" in refused.output, refused.output
