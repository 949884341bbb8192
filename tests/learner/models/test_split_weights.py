"""Weights that are brought when they are used: how much is there at once, and that the numbers are the same."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.live_tensors import LiveTensors
from learner.config import ModelConfig
from learner.models.policy import load_reference


def test_a_reference_in_host_memory_is_on_the_device_layer_by_layer(tiny_model: Path) -> None:
    config = ModelConfig(path=str(tiny_model))
    ids = torch.arange(6, 26).reshape(2, 10)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False
    plain, offloaded = load_reference(config, 0), load_reference(config, 0, torch.device("cpu"), "offloaded")
    sizes = [p.numel() * 4 for p in plain.parameters()]

    def peak(model: torch.nn.Module) -> tuple[torch.Tensor, int]:
        live = LiveTensors(model.parameters())
        before = live.now
        with torch.no_grad(), live:
            found: torch.Tensor = model(ids, mask, 1.0)["logprobs"]
        return found, live.peak - before

    (one, least), (two, more) = peak(plain), peak(offloaded)
    assert torch.equal(one, two)
    brought = more - least  # copies, of which a GPU would have these alone
    assert 0 < brought <= 2 * max(sizes) < sum(sizes)
