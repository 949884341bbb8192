"""Supervised training and greedy decoding against plain, slow versions of themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from learner.warmstart.supervised import IGNORED, SupervisedConfig, collate_turns, greedy_decode, train_supervised

PAD, END = 0, 1
PAIRS = [((2, 3), (4, 5, END)), ((3,), (5, END)), ((2, 2, 4), (3, END)), ((5,), (2, 2, 2, END))]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=6,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return Qwen2ForCausalLM(config).eval()


def test_collate_pads_on_the_right_and_labels_responses_only() -> None:
    input_ids, attention_mask, labels = collate_turns(PAIRS[:2], PAD)
    assert input_ids.tolist() == [[2, 3, 4, 5, END], [3, 5, END, PAD, PAD]]
    assert attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert labels.tolist() == [[IGNORED, IGNORED, 4, 5, END], [IGNORED, 5, END, IGNORED, IGNORED]]


def test_first_loss_is_the_mean_over_response_tokens(model: Any) -> None:
    total, count = 0.0, 0
    with torch.no_grad():
        for prompt, response in PAIRS:
            logprobs = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
            for i, token in enumerate(response):
                total -= logprobs[len(prompt) + i - 1, token].item()
                count += 1
    losses = train_supervised(model, PAIRS, PAD, SupervisedConfig(num_steps=1, batch_size=4))
    assert losses == [pytest.approx(total / count, abs=1e-5)]


@pytest.mark.slow
def test_it_learns_pairs_by_heart_and_repeats_them(model: Any) -> None:
    seen: list[tuple[int, float]] = []
    config = SupervisedConfig(num_steps=120, num_warmup_steps=5, num_decay_steps=60, batch_size=3, lr=1e-2)
    losses = train_supervised(model, PAIRS, PAD, config, lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(losses, start=1)) and len(losses) == 120
    assert losses[-1] < 0.02 < 0.5 < losses[0]
    assert not model.training
    decoded = greedy_decode(model, [prompt for prompt, _ in PAIRS], END, 6)
    assert decoded == [list(response[:-1]) for _, response in PAIRS]


def test_the_seed_fixes_the_run(model: Any) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}
    runs = []
    for seed in (3, 3, 4):
        model.load_state_dict(start)
        runs.append(train_supervised(model, PAIRS, PAD, SupervisedConfig(num_steps=8, batch_size=2, seed=seed)))
    assert runs[0] == runs[1] != runs[2]


def recorded_rates(model: Any, monkeypatch: pytest.MonkeyPatch, ready_after: int | None) -> list[float]:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def record(optimizer: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    config = SupervisedConfig(
        num_steps=20, num_warmup_steps=3, num_decay_steps=4, check_every_steps=5, batch_size=2, lr=1.0e-4
    )
    asked: list[int] = []

    def is_ready() -> bool:
        assert not model.training
        asked.append(len(rates))
        return ready_after is not None and len(rates) >= ready_after

    train_supervised(model, PAIRS, PAD, config, is_ready=is_ready)
    assert asked == [5, 10, 15] if ready_after is None else asked[-1] == ready_after
    return [rate / 1.0e-4 for rate in rates]


def test_learning_rate_falls_at_the_end_or_when_ready(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rise = [0.25, 0.5, 0.75]
    fall = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    never = recorded_rates(model, monkeypatch, None)
    assert never == pytest.approx([*rise, *[1.0] * 13, *fall])
    monkeypatch.undo()
    soon = recorded_rates(model, monkeypatch, 10)
    assert soon == pytest.approx([*rise, *[1.0] * 7, *fall])


@torch.no_grad()
def slow_greedy(model: Any, prompt: tuple[int, ...], limit: int) -> list[int]:
    """One prompt, the whole sequence anew for every token."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def test_greedy_decoding_equals_the_slow_way(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    prompts = [
        tuple(torch.randint(2, 6, (length,), generator=generator).tolist()) for length in (1, 4, 2, 4, 1, 7, 4, 4)
    ]
    expected = [slow_greedy(model, prompt, 9) for prompt in prompts]
    assert greedy_decode(model, prompts, END, 9) == expected
    assert greedy_decode(model, prompts, END, 9, batch_size=2) == expected
    assert len({len(row) for row in expected}) > 1
    assert greedy_decode(model, [], END, 9) == []
