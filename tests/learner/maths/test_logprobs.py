"""Chunked log-probabilities and entropies against log_softmax. Numbers in comments name the invariants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learner.maths.logprobs import (
    align_to_tokens,
    scatter_to_tokens,
    states_of_actions,
    token_logprobs,
    token_logprobs_from_logits,
)

F64 = torch.float64
BATCH, SEQ, DIM, VOCABULARY = 3, 6, 5, 11


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    mask = torch.rand((BATCH, SEQ), generator=g) < 0.6
    mask[:, 0] = False
    return {
        "hidden": torch.randn((BATCH, SEQ, DIM), generator=g, dtype=F64),
        "weight": torch.randn((VOCABULARY, DIM), generator=g, dtype=F64),
        "bias": torch.randn(VOCABULARY, generator=g, dtype=F64),
        "ids": torch.randint(VOCABULARY, (BATCH, SEQ), generator=g),
        "mask": mask,
    }


def obvious(logits: Tensor, ids: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token by token."""
    logprobs, entropy = torch.zeros(ids.shape, dtype=F64), torch.zeros(ids.shape, dtype=F64)
    for b, t in mask.nonzero().tolist():
        logp = torch.log_softmax(logits[b, t - 1] / temperature, dim=-1)
        logprobs[b, t] = logp[ids[b, t]]
        entropy[b, t] = -(logp.exp() * logp).sum()
    return logprobs, entropy


def test_the_shift() -> None:
    """The output at t - 1 belongs to token t."""
    x = torch.arange(12.0).reshape(2, 6)
    assert align_to_tokens(x).tolist() == [[0, 0, 1, 2, 3, 4], [0, 6, 7, 8, 9, 10]]
    mask = torch.tensor([[False, True, False, False, False, True], [False, False, True, False, False, False]])
    assert states_of_actions(x, mask).tolist() == [0, 4, 7]
    assert torch.equal(states_of_actions(x, mask), align_to_tokens(x)[mask])
    assert torch.equal(scatter_to_tokens(x[mask], mask), torch.where(mask, x, 0.0))
    wide = torch.stack([x, -x], dim=-1)
    assert torch.equal(scatter_to_tokens(wide[mask], mask), torch.where(mask[..., None], wide, 0.0))
    with pytest.raises(ValueError, match="position 0"):
        states_of_actions(x, torch.ones_like(mask))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("from_logits", [False, True])
def test_values_and_gradients(inputs: dict[str, Tensor], temperature: float, chunk: int, from_logits: bool) -> None:
    """Log-probabilities, entropies and both gradients, for every chunk size; a random mix of the two upstream."""
    leaves = [inputs[name].clone().requires_grad_() for name in ("hidden", "weight", "bias")]
    hidden, weight, bias = leaves
    ids, mask = inputs["ids"], inputs["mask"]
    expected = obvious(hidden @ weight.T + bias, ids, mask, temperature)
    if from_logits:
        logits = hidden @ weight.T + bias
        found = token_logprobs_from_logits(logits, ids, mask, temperature=temperature, chunk_tokens=chunk)
    else:
        found = token_logprobs(hidden, weight, ids, mask, bias=bias, temperature=temperature, chunk_tokens=chunk)
    upstream = torch.randn((2, BATCH, SEQ), generator=torch.Generator().manual_seed(1), dtype=F64)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    slow, fast = (
        torch.autograd.grad((upstream[0] * one).sum() + (upstream[1] * two).sum(), leaves, retain_graph=True)
        for one, two in (expected, found)
    )
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_without_entropy_and_without_bias(inputs: dict[str, Tensor]) -> None:
    hidden, weight = inputs["hidden"].clone().requires_grad_(), inputs["weight"].clone().requires_grad_()
    ids, mask = inputs["ids"], inputs["mask"]
    found = token_logprobs(hidden, weight, ids, mask, with_entropy=False)
    expected, _ = obvious(hidden @ weight.T, ids, mask, 1.0)
    assert torch.allclose(found.logprobs, expected, rtol=1e-9)
    assert (found.entropy == 0).all()
    fast = torch.autograd.grad(found.logprobs.sum(), [hidden, weight])
    slow = torch.autograd.grad(expected.sum(), [hidden, weight])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(fast, slow, strict=True))


def test_frozen_head_gets_no_gradient(inputs: dict[str, Tensor]) -> None:
    """Invariant 23: a frozen LM head lets gradients through to the hidden states only."""
    hidden, weight = inputs["hidden"].clone().requires_grad_(), inputs["weight"]
    token_logprobs(hidden, weight, inputs["ids"], inputs["mask"]).logprobs.sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_masked_states_never_leak(inputs: dict[str, Tensor]) -> None:
    """Invariant 22: NaN hidden states that no action reads, in value and gradient; an all-masked batch."""
    mask = inputs["mask"]
    read = torch.cat([mask[:, 1:], torch.zeros(BATCH, 1, dtype=torch.bool)], dim=1)
    dirty = inputs["hidden"].masked_fill(~read[..., None], torch.nan).requires_grad_()
    weight = inputs["weight"].clone().requires_grad_()
    found = token_logprobs(dirty, weight, inputs["ids"], mask)
    clean = token_logprobs(inputs["hidden"], weight, inputs["ids"], mask)
    assert torch.equal(found.logprobs, clean.logprobs)
    (found.logprobs.sum() + found.entropy.sum()).backward()
    assert dirty.grad is not None and weight.grad is not None
    assert dirty.grad.isfinite().all() and weight.grad.isfinite().all()
    assert (dirty.grad[~read] == 0).all()
    nobody = torch.zeros_like(mask)
    empty = token_logprobs(dirty, weight, inputs["ids"], nobody)
    weight.grad = None
    empty.logprobs.sum().backward()
    assert (empty.logprobs == 0).all()
    assert weight.grad is not None and (weight.grad == 0).all()


def test_tokens_that_cannot_be_sampled() -> None:
    """A logit of -inf has probability 0: finite entropy and gradients."""
    logits = torch.tensor([[[0.0, -torch.inf, 1.0], [0.0, 0.0, 0.0]]], dtype=F64, requires_grad=True)
    ids, mask = torch.tensor([[0, 2]]), torch.tensor([[False, True]])
    found = token_logprobs_from_logits(logits, ids, mask)
    two = torch.log_softmax(torch.tensor([0.0, 1.0], dtype=F64), -1)
    assert found.logprobs[0, 1].item() == pytest.approx(two[1].item())
    assert found.entropy[0, 1].item() == pytest.approx(-(two.exp() * two).sum().item())
    (found.logprobs.sum() + found.entropy.sum()).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("from_logits", [False, True])
def test_no_block_of_tokens_times_vocabulary_is_kept(from_logits: bool) -> None:
    """With 64 tokens and 1000 words: float32 tensors that are kept, or alive at any time, stay below the block."""
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn((1, 65, 8), generator=g), torch.randn((1000, 8), generator=g)
    ids, mask = torch.randint(1000, (1, 65), generator=g), torch.ones(1, 65, dtype=torch.bool)
    mask[:, 0] = False
    kept: list[Tensor] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        if from_logits:
            logits = (hidden @ weight.T).bfloat16().requires_grad_()
            token_logprobs_from_logits(logits, ids, mask, chunk_tokens=4)
        else:
            token_logprobs(hidden.requires_grad_(), weight.requires_grad_(), ids, mask, chunk_tokens=4)
    assert max(t.numel() for t in kept if t.dtype == torch.float32) <= 1000 * 8


def test_bfloat16_head_gives_float32_results(inputs: dict[str, Tensor]) -> None:
    hidden, weight = (inputs[name].bfloat16().requires_grad_() for name in ("hidden", "weight"))
    found = token_logprobs(hidden, weight, inputs["ids"], inputs["mask"])
    expected, _ = obvious(hidden.double() @ weight.double().T, inputs["ids"], inputs["mask"], 1.0)
    assert found.logprobs.dtype == torch.float32
    assert torch.allclose(found.logprobs.double(), expected, atol=0.05)
    found.logprobs.sum().backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


def test_temperature_must_be_positive(inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="temperature"):
        token_logprobs(inputs["hidden"], inputs["weight"], inputs["ids"], inputs["mask"], temperature=0.0)
