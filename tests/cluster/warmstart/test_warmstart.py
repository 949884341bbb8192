"""The warm start: tokenizer, model folder, what is reported, and what comes out of a whole one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from cluster.warmstart.measure import greedy_accuracy, measure
from cluster.warmstart.warmstart import WarmstartConfig, build_model, build_tokenizer, make_corpus, warmstart
from learner.warmstart.supervised import greedy_decode
from rollout.component import UserError
from rollout.conversation.conversation import ChatTokens
from rollout.data.prompts import load_tokenizer
from rollout.rewards.exact_match import answer_equals
from rollout.tasks.chain import Chain
from rollout.tasks.dialogue.task import Dialogue

TINY = {"hidden_size": 32, "num_heads": 1, "intermediate_size": 32, "num_demonstrations": 200, "num_steps": 4}


def chain(**options: Any) -> Chain:
    return Chain(Chain.Config.model_validate({"num_train": 64, "num_eval": 48, **options}))


def dialogue(**options: Any) -> Dialogue:
    return Dialogue(Dialogue.Config.model_validate({"num_train": 64, "num_eval": 12, **options}))


def test_tokenizer_is_one_token_a_character() -> None:
    tokenizer = build_tokenizer(Chain(Chain.Config()).alphabet(), 256)
    assert len(tokenizer) == 22
    ids = tokenizer("7 2 4=8", add_special_tokens=False)["input_ids"]
    assert len(ids) == 7 and tokenizer.decode(ids) == "7 2 4=8"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("7x", add_special_tokens=False)["input_ids"] == ids[:1]


@pytest.mark.parametrize("alphabet", [chain().alphabet(), dialogue().alphabet(), "aé µ\n?'"])
def test_a_loaded_tokenizer_is_the_one_that_was_saved(tmp_path: Path, alphabet: str) -> None:
    """transformers puts tokenizers of Qwen2 folders together anew: blanks were lost once."""
    tokenizer = build_tokenizer(alphabet, 64)
    build_model(tokenizer, WarmstartConfig.model_validate(TINY)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    text = f"<|user|>{alphabet}  {alphabet}<|end|>"
    ids = tokenizer(text)["input_ids"]
    assert loaded(text)["input_ids"] == ids
    assert loaded.decode(ids) == tokenizer.decode(ids) == (text if " " in alphabet else text.replace(" ", ""))
    assert loaded.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_special_tokens=True)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.chat_template) == (0, 1, tokenizer.chat_template)


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


def test_a_conversation_is_learned_in_the_assistant_s_turns_as_the_template_renders_it() -> None:
    task = dialogue()
    tokenizer = build_tokenizer(task.alphabet(), 256)
    corpus = make_corpus(task, tokenizer, WarmstartConfig.model_validate(TINY))
    rng = random.Random(0)
    examples = task.warmstart_examples(200, rng)
    assert len({len(turns) for turns in corpus}) > 2
    for turns, example in zip(corpus, examples, strict=True):
        messages = [*example.messages, *task.conversation(example, rng)]
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer.decode([token for turn in turns for token in turn]) == whole
        said = [message["content"] + "<|end|>" for message in messages if message["role"] == "assistant"]
        assert [tokenizer.decode(turn) for turn in turns[1::2]] == said


def say(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, reply: Callable[[str], str]) -> None:
    """Let a function from text to text stand for the model."""

    def decode(_: Any, prompts: Sequence[Sequence[int]], *__: Any, **___: Any) -> list[list[int]]:
        replies = [reply(tokenizer.decode(prompt)) for prompt in prompts]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in replies]

    monkeypatch.setattr("cluster.warmstart.measure.greedy_decode", decode)


def test_conversations_are_measured_with_the_real_user(monkeypatch: pytest.MonkeyPatch) -> None:
    task = dialogue(imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
    tokenizer, examples = build_tokenizer(task.alphabet(), 256), task.examples("test")
    model = build_model(tokenizer, WarmstartConfig.model_validate(TINY))
    right: dict[str, str] = {}
    seen: set[str] = set()
    for example in examples:
        messages = list(example.messages)
        for message in task.conversation(example, random.Random(0)):
            if message["role"] == "assistant":
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                right.setdefault(text, message["content"])
            messages.append(message)

    def reply(text: str) -> str:
        seen.add(text)
        return right[text]

    say(monkeypatch, tokenizer, reply)
    assert measure(model, tokenizer, task, examples, 24) == pytest.approx({"tcr": 1.0, "acr": 1.0, "gcr": 1.0})
    assert seen == set(right)
    say(monkeypatch, tokenizer, lambda text: "?")
    assert measure(model, tokenizer, task, examples, 24) == {"tcr": 0.0, "acr": 0.0, "gcr": 0.0}


def test_a_conversation_ends_where_the_model_s_positions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    task = dialogue()
    tokenizer = build_tokenizer(task.alphabet(), 64)
    model = build_model(tokenizer, WarmstartConfig.model_validate({**TINY, "max_position": 64}))
    lengths: list[int] = []

    def reply(text: str) -> str:
        lengths.append(len(tokenizer(text)["input_ids"]))
        return "b" * 20

    say(monkeypatch, tokenizer, reply)
    measure(model, tokenizer, task, task.examples("test")[:1], 20)
    assert len(lengths) > 1 and lengths == sorted(lengths) and lengths[-1] + 20 <= 64


@pytest.mark.slow
def test_decoding_in_conversations_equals_one_at_a_time() -> None:
    task = dialogue()
    tokenizer = build_tokenizer(task.alphabet(), 256)
    model = build_model(tokenizer, WarmstartConfig.model_validate(TINY)).eval()
    chat, examples = ChatTokens(tokenizer), task.examples("test")
    prompts = [chat.opening(example.messages) for example in examples]
    assert len({len(prompt) for prompt in prompts}) > 3
    together = greedy_decode(model, prompts, tokenizer.eos_token_id, 12, pad_token_id=tokenizer.pad_token_id)
    alone = [greedy_decode(model, [prompt], tokenizer.eos_token_id, 12)[0] for prompt in prompts]
    assert together == alone


def test_an_unknown_ready_metric(tmp_path: Path) -> None:
    options = {**TINY, "ready_metric": "trc", "num_steps": 60, "num_decay_steps": 1, "batch_size": 2}
    with pytest.raises(UserError, match=r"ready_metric: no metric .trc.; did you mean .tcr.\?"):
        warmstart(dialogue(), tmp_path / "m", WarmstartConfig.model_validate(options))


@pytest.mark.slow
def test_the_folder_loads_and_gives_the_reported_accuracy(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    task = chain(imperfection={"wrong_facts_frac": 0.0, "slip_prob": 0.0})
    report = warmstart(
        task, tmp_path / "m", WarmstartConfig.model_validate(TINY), lambda step, total, _: steps.append((step, total))
    )
    assert steps == [(step, 4) for step in range(1, 5)]
    assert list(report.metrics) == ["accuracy"] and tuple(report.metrics["accuracy"]) == task.splits
    tokenizer = load_tokenizer(str(tmp_path / "m"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert report.num_parameters == sum(p.numel() for p in model.parameters())
    for split, accuracy in report.metrics["accuracy"].items():
        assert greedy_accuracy(model, tokenizer, task.examples(split), 24) == accuracy
    again = warmstart(task, tmp_path / "n", WarmstartConfig.model_validate(TINY))
    assert again.loss == report.loss and again.metrics == report.metrics


def test_greedy_accuracy_counts_right_final_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    task, tokenizer = chain(), build_tokenizer(chain().alphabet(), 256)
    examples = task.examples("test")
    answers = [f"1 2={example.reference}" if i % 3 else "1 2" for i, example in enumerate(examples)]
    rows = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    monkeypatch.setattr("cluster.warmstart.measure.greedy_decode", lambda *_: rows)
    assert greedy_accuracy(None, tokenizer, examples, 24) == 32 / 48
    assert sum(answer_equals(a, str(e.reference)) for a, e in zip(answers, examples, strict=True)) == 32


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_whole_warm_start_leaves_head_room(tmp_path: Path) -> None:
    """That of the demo, with a term less in each question: half as long."""
    task = Chain(Chain.Config(num_terms=4))
    report = warmstart(task, tmp_path / "m", WarmstartConfig(num_eval=128, num_decay_steps=150))
    accuracy = report.metrics["accuracy"]
    assert 0.38 <= accuracy["test"] <= 0.62
    assert all(share > 0.2 for share in accuracy.values())
    assert report.num_parameters < 300_000


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_short_warm_start_learns_to_converse_and_leaves_head_room(tmp_path: Path) -> None:
    task = Dialogue(Dialogue.Config())
    shorter = {
        "num_eval": 64,
        "num_steps": 350,
        "num_decay_steps": 120,
        "num_demonstrations": 8192,
        "ready_accuracy": 0.0,
    }
    options = {**task.warmstart_options(), **shorter}
    report = warmstart(task, tmp_path / "m", WarmstartConfig.model_validate(options))
    assert list(report.metrics) == ["tcr", "acr", "gcr"]
    assert 0.38 <= report.metrics["tcr"]["test"] <= 0.62
    assert report.metrics["acr"]["test"] > 0.85 and report.metrics["gcr"]["test"] > 0.7
    assert report.metrics["tcr"]["ood"] > 0.2
    assert report.num_parameters < 300_000
