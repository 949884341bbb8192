"""The warm start: tokenizer, model folder, what is reported, and what comes out of a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from cluster.warmstart import WarmstartConfig, build_model, build_tokenizer, greedy_accuracy, make_corpus, warmstart
from rollout.prompts import load_tokenizer
from rollout.rewards.exact_match import answer_equals
from rollout.tasks.chain import Chain

TINY = {"hidden_size": 32, "num_heads": 1, "intermediate_size": 32, "num_demonstrations": 200, "num_steps": 4}


def chain(**options: Any) -> Chain:
    return Chain(Chain.Config.model_validate({"num_train": 64, "num_eval": 48, **options}))


def test_tokenizer_is_one_token_a_character() -> None:
    tokenizer = build_tokenizer(Chain(Chain.Config()).alphabet(), 256)
    assert len(tokenizer) == 22
    ids = tokenizer("7 2 4=8", add_special_tokens=False)["input_ids"]
    assert len(ids) == 7 and tokenizer.decode(ids) == "7 2 4=8"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("7x", add_special_tokens=False)["input_ids"][1] == tokenizer.unk_token_id


def test_model_shape() -> None:
    tokenizer = build_tokenizer("0123", 256)
    model = build_model(tokenizer, WarmstartConfig())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tuple(model.get_input_embeddings().weight.shape) == (len(tokenizer), 96)
    assert model.config.hidden_size // model.config.num_attention_heads == 32
    with pytest.raises(ValidationError, match="hidden_size 64 over num_heads 4 must be a whole number of at least 32"):
        WarmstartConfig(hidden_size=64, num_heads=4)


def test_corpus_is_prompts_and_ended_demonstrations() -> None:
    tokenizer = build_tokenizer(chain().alphabet(), 256)
    pairs = make_corpus(chain(), tokenizer, WarmstartConfig.model_validate(TINY))
    assert len(pairs) == 200
    assert pairs == make_corpus(chain(), tokenizer, WarmstartConfig.model_validate(TINY))
    for prompt, response in pairs:
        text = tokenizer.decode(prompt)
        assert text.startswith("<|user|>") and text.endswith("<|assistant|>") and len(prompt) == 13
        assert response[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in response[:-1]


def test_the_folder_loads_and_gives_the_reported_accuracy(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    task = chain(imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
    report = warmstart(
        task, tmp_path / "m", WarmstartConfig.model_validate(TINY), lambda step, total, _: steps.append((step, total))
    )
    assert steps == [(step, 4) for step in range(1, 5)]
    assert tuple(report.accuracy) == task.splits
    tokenizer = load_tokenizer(str(tmp_path / "m"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert report.num_parameters == sum(p.numel() for p in model.parameters())
    for split, accuracy in report.accuracy.items():
        assert greedy_accuracy(model, tokenizer, task.examples(split), 24) == accuracy
    again = warmstart(task, tmp_path / "n", WarmstartConfig.model_validate(TINY))
    assert again.loss == report.loss and again.accuracy == report.accuracy


def test_greedy_accuracy_counts_right_final_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    task, tokenizer = chain(), build_tokenizer(chain().alphabet(), 256)
    examples = task.examples("test")
    answers = [f"1 2={example.reference}" if i % 3 else "1 2" for i, example in enumerate(examples)]
    rows = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    monkeypatch.setattr("learner.supervised.greedy_decode", lambda *_: rows)
    assert greedy_accuracy(None, tokenizer, examples, 24) == 32 / 48
    assert sum(answer_equals(a, str(e.reference)) for a, e in zip(answers, examples, strict=True)) == 32


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_whole_warm_start_leaves_head_room(tmp_path: Path) -> None:
    report = warmstart(Chain(Chain.Config()), tmp_path / "m")
    assert 0.38 <= report.accuracy["test"] <= 0.62
    assert all(accuracy > 0.2 for accuracy in report.accuracy.values())
    assert report.num_parameters < 300_000
