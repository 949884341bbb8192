"""``dvpo warmstart``: make a small language model that is right about half of the time.

The model imitates a task's demonstrations, which are imperfect by the task's own options. What comes out is a normal
Hugging Face folder: a Qwen2 causal language model, a character tokenizer and a chat template.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from rollout.component import StrictModel
from rollout.rewards.exact_match import answer_equals
from rollout.tasks.base import Example, Task

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
        accuracy: greedy accuracy by split, on held-out questions.
        loss: mean of the last ten steps, in nats per token.
        seconds: wall time of everything.
    """

    path: Path
    num_parameters: int
    accuracy: dict[str, float]
    loss: float
    seconds: float


def build_tokenizer(alphabet: str, max_position: int) -> Any:
    """A tokenizer with one token per character, role tokens and a chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, UNKNOWN, *ROLES.values()]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(set(alphabet))])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
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
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

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
    import torch

    from learner.supervised import SupervisedConfig, train_supervised

    torch.set_num_threads(1)  # for a model this small a second thread costs four times what it brings
    config = config or WarmstartConfig()
    started = time.monotonic()
    tokenizer = build_tokenizer(task.alphabet(), config.max_position)
    model = build_model(tokenizer, config)
    pairs = make_corpus(task, tokenizer, config)
    options = {name: getattr(config, name) for name in ("num_steps", "num_decay_steps", "batch_size", "lr", "seed")}
    report_step = None if on_step is None else lambda step, loss: on_step(step, config.num_steps, loss)
    max_new_tokens = 2 * max(len(response) for _, response in pairs)
    probe = task.examples("train")[:128]
    losses = train_supervised(
        model,
        pairs,
        tokenizer.pad_token_id,
        SupervisedConfig(**options),
        report_step,
        lambda: greedy_accuracy(model, tokenizer, probe, max_new_tokens) >= config.ready_accuracy,
    )
    accuracy = {
        split: greedy_accuracy(model, tokenizer, task.examples(split)[: config.num_eval], max_new_tokens)
        for split in task.splits
    }
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    tail = losses[-10:]
    seconds = time.monotonic() - started
    return WarmstartReport(output, model.num_parameters(), accuracy, sum(tail) / len(tail), seconds)


def make_corpus(task: Task, tokenizer: Any, config: WarmstartConfig) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Token ids of prompts and demonstrated responses, each response with its end-of-sequence token."""
    from rollout.prompts import render

    rng = random.Random(config.seed)
    examples = task.warmstart_examples(config.num_demonstrations, rng)
    responses = [task.demonstration(example, rng) for example in examples]
    rows = tokenizer(responses, add_special_tokens=False)["input_ids"]
    prompts = render(tokenizer, examples, task.name)
    return [(prompt.token_ids, (*row, tokenizer.eos_token_id)) for prompt, row in zip(prompts, rows, strict=True)]


def greedy_accuracy(model: Any, tokenizer: Any, examples: Sequence[Example], max_new_tokens: int) -> float:
    """Share of questions whose greedily decoded final answer equals the reference."""
    from learner.supervised import greedy_decode
    from rollout.prompts import render

    prompts = render(tokenizer, examples, "")
    rows = greedy_decode(model, [prompt.token_ids for prompt in prompts], tokenizer.eos_token_id, max_new_tokens)
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    right = [answer_equals(text, prompt.reference or "") for text, prompt in zip(texts, prompts, strict=True)]
    return sum(right) / len(right)
