"""Numbers of autocast, without a copy of the model: what is alive is counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, Qwen3Config

import learner.models.critic
from learner.models.bfloat16_pass import bfloat16_pass
from learner.models.critic import CriticModel
from learner.models.spec import CriticConfig

NUM_LAYERS = 4


class CastWeights(TorchDispatchMode):
    """Counts numbers of matrices that were cast to bfloat16 and are still there, now and at most."""

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest, self.now, self.peak = smallest, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        is_cast = func is torch.ops.aten._to_copy.default and found.dtype is torch.bfloat16
        if is_cast and found.dim() == 2 and found.numel() >= self.smallest:
            self._change(found.numel())
            weakref.finalize(found.untyped_storage(), self._change, -found.numel())
        return found

    def _change(self, number: int) -> None:
        self.now += number
        self.peak = max(self.peak, self.now)


def critic(checkpointing: bool) -> CriticModel:
    config = Qwen3Config(
        hidden_size=64, intermediate_size=192, num_hidden_layers=NUM_LAYERS, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, vocab_size=128,
    )  # fmt: skip
    torch.manual_seed(0)
    body = AutoModel.from_config(config).train()
    if checkpointing:
        body.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return CriticModel(body, CriticConfig(num_heads=2, num_quantiles=8), 0, autocast=True)


def run(model: CriticModel, grad: bool) -> tuple[torch.Tensor, CastWeights]:
    """The outputs of one pass, with gradients if asked for, and what was cast."""
    torch.manual_seed(1)
    ids = torch.randint(0, 128, (2, 12))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False
    with CastWeights(smallest=32 * 64) as counted, torch.set_grad_enabled(grad):
        values = model(ids, mask)["quantile_values"]
        if grad:
            values.square().sum().backward()
    return values.detach(), counted


@contextmanager
def plain_autocast(device_type: str, enabled: bool = True) -> Iterator[None]:
    with torch.autocast(device_type, torch.bfloat16, enabled=enabled):
        yield


@pytest.mark.parametrize(("checkpointing", "grad"), [(False, False), (False, True), (True, True)])
def test_no_more_than_one_layer_is_there_in_bfloat16(
    checkpointing: bool, grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = critic(checkpointing)
    found, counted = run(ours, grad)
    weights = sum(m.weight.numel() for m in ours.body.modules() if isinstance(m, torch.nn.Linear))
    assert 0 < counted.peak <= weights / NUM_LAYERS
    theirs = critic(checkpointing)
    monkeypatch.setattr(learner.models.critic, "bfloat16_pass", plain_autocast)
    expected, copied = run(theirs, grad)
    assert copied.peak >= weights, "of plain autocast all of them are"
    assert torch.equal(found, expected)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]


def test_a_weight_that_changes_before_the_backward_pass_is_noticed() -> None:
    layer = torch.nn.Linear(4, 3)
    with bfloat16_pass("cpu"):
        out = layer(torch.ones(2, 4, requires_grad=True)).float().sum()
    with torch.no_grad():
        layer.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="was changed between"):
        out.backward()
