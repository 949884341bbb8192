"""``dvpo warmstart``: make a small language model that is right about half of the time.

The model imitates a task's demonstrations, which are imperfect by the task's own options. What comes out is a normal
Hugging Face folder: a Qwen2 causal language model, a character tokenizer and a chat template. In conversations the
assistant's turns are learned; what is said between them is context, token by token as a rollout sees it.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from cluster.warmstart.measure import measure
from learner.warmstart.supervised import SupervisedConfig, train_supervised
from rollout.component import StrictModel, nearest
from rollout.component.mistakes import UnknownName
from rollout.conversation.conversation import ChatTokens
from rollout.data.prompts import render
from rollout.tasks.base import Task

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class WarmstartConfig(StrictModel):
    """Shape of the model and length of its training."""

    hidden_size: int = Field(96, ge=32, description="Width; a multiple of 32 times num_heads for vLLM on CPU.")
    num_layers: int = Field(2, ge=1, description="Transformer layers.")
    num_heads: int = Field(3, ge=1, description="Attention heads; each must be at least 32 wide.")
    intermediate_size: int = Field(256, ge=1, description="Width of the feed-forward layers.")
    initializer_range: float = Field(0.1, gt=0.0, description="Standard deviation of the first weights.")
    max_position: int = Field(256, ge=32, description="Longest sequence, in tokens.")
    rope_theta: float = Field(1000.0, gt=1.0, description="Base of the rotary position embedding.")
    num_demonstrations: int = Field(32768, ge=1, description="Size of the corpus.")
    num_steps: int = Field(2500, ge=1, description="Optimiser steps, at most.")
    num_decay_steps: int = Field(400, ge=1, description="Last steps, with a falling learning rate.")
    ready_accuracy: float = Field(
        0.35, ge=0.0, le=1.0, description="Greedy accuracy on training questions at which the learning rate may fall."
    )
    ready_metric: str = Field(
        "accuracy", description="What is meant by that: 'accuracy' or, for conversations, a metric of their outcome."
    )
    batch_size: int = Field(64, ge=1, description="Demonstrations in one step.")
    lr: float = Field(3e-3, gt=0.0, description="Learning rate before it falls.")
    num_eval: int = Field(512, ge=1, description="Held-out questions of each split that are measured, at most.")
    seed: int = Field(0, ge=0, description="Fixes the first weights and the corpus.")

    @model_validator(mode="after")
    def _head_width(self) -> WarmstartConfig:
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads < 32:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_heads {self.num_heads} must be a whole number of at least "
                "32: narrower heads cannot be served by vLLM on a CPU"
            )
        return self


@dataclass(frozen=True, slots=True)
class WarmstartReport:
    """What came out.

    Attributes:
        path: the model folder.
        num_parameters: with tied embeddings counted once.
        metrics: by metric and split, on held-out questions, decoding greedily: ``accuracy``, or for conversations the
            means of their outcomes' metrics.
        loss: mean of the last ten steps, in nats per token.
        seconds: wall time of everything.
    """

    path: Path
    num_parameters: int
    metrics: dict[str, dict[str, float]]
    loss: float
    seconds: float


def build_tokenizer(alphabet: str, max_position: int) -> Any:
    """A tokenizer with one token per character (per byte, outside ASCII), role tokens and a chat template.

    It is a byte-level one without merges, as transformers makes any tokenizer of a Qwen2 folder on loading it, whatever
    the folder says: another kind would lose its blanks then. Characters that it does not know vanish.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = [part for text in sorted(set(alphabet)) for part in byte_level.pre_tokenize_str(text)[0][0]]
    tokens = dict.fromkeys([PAD, END, UNKNOWN, *ROLES.values(), *characters])
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES.values()),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_position,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_model(tokenizer: Any, config: WarmstartConfig) -> Any:
    """A randomly initialised Qwen2 causal language model with tied embeddings."""
    torch.manual_seed(config.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=config.max_position,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            initializer_range=config.initializer_range,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )


def warmstart(
    task: Task,
    output: Path,
    config: WarmstartConfig | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> WarmstartReport:
    """Train a model on the task's demonstrations, measure it on the evaluation splits, and save it.

    Args:
        task: must have demonstrations and an alphabet.
        output: the folder to write; made if missing.
        on_step: called with step (from 1), number of steps and loss.
    """
    torch.set_num_threads(1)  # for a model this small a second thread costs four times what it brings
    config = config or WarmstartConfig()
    started = time.monotonic()
    tokenizer = build_tokenizer(task.alphabet(), config.max_position)
    model = build_model(tokenizer, config)
    corpus = make_corpus(task, tokenizer, config)
    supervised = SupervisedConfig(
        num_steps=config.num_steps,
        num_decay_steps=config.num_decay_steps,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=config.seed,
    )
    report_step = None if on_step is None else lambda step, loss: on_step(step, config.num_steps, loss)
    # Room to be wrong at length, and an end to what never ends.
    max_new_tokens = 2 * max(len(response) for turns in corpus for response in turns[1::2])
    # Training questions, since the held-out ones are what the report is about.
    probe = task.examples("train")[:128]

    def is_ready() -> bool:
        found = measure(model, tokenizer, task, probe, max_new_tokens)
        if config.ready_metric not in found:
            raise UnknownName(f"ready_metric: no metric {config.ready_metric!r}; {nearest(config.ready_metric, found)}")
        return found[config.ready_metric] >= config.ready_accuracy

    losses = train_supervised(model, corpus, tokenizer.pad_token_id, supervised, report_step, is_ready)
    metrics = _held_out_metrics(model, tokenizer, task, config.num_eval, max_new_tokens)
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    tail = losses[-10:]
    seconds = time.monotonic() - started
    return WarmstartReport(output, model.num_parameters(), metrics, sum(tail) / len(tail), seconds)


def _held_out_metrics(
    model: Any, tokenizer: Any, task: Task, num_eval: int, max_new_tokens: int
) -> dict[str, dict[str, float]]:
    """Numbers by metric and split."""
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    for split in task.splits:
        for name, value in measure(model, tokenizer, task, task.examples(split)[:num_eval], max_new_tokens).items():
            metrics[name][split] = value
    return dict(metrics)


def make_corpus(task: Task, tokenizer: Any, config: WarmstartConfig) -> list[tuple[tuple[int, ...], ...]]:
    """Token ids of worked conversations, as :data:`learner.warmstart.supervised.Turns`; with end tokens."""
    rng = random.Random(config.seed)
    examples = task.warmstart_examples(config.num_demonstrations, rng)
    conversations = [task.conversation(example, rng) for example in examples]
    chat = ChatTokens(tokenizer)

    @cache
    def response_ids(text: str) -> tuple[int, ...]:
        return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)

    @cache
    def reply_ids(text: str) -> tuple[int, ...]:
        return chat.between((tokenizer.eos_token_id,), [{"role": "user", "content": text}])

    corpus = []
    for prompt, messages in zip(render(tokenizer, examples, task.name), conversations, strict=True):
        said = [response_ids(message["content"]) for message in messages[::2]]
        heard = [reply_ids(message["content"]) for message in messages[1::2]]
        corpus.append(tuple(turn for pair in zip([prompt.token_ids, *heard], said, strict=True) for turn in pair))
    return corpus
