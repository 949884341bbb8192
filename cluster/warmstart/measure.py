"""How good a model is at a task when it decodes greedily, by plain transformers: single responses or conversations."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from learner.warmstart.supervised import greedy_decode
from rollout.conversation.conversation import ChatTokens
from rollout.data.prompts import render
from rollout.environment import Environment
from rollout.rewards.exact_match import answer_equals
from rollout.tasks.base import Example, Task
from rollout.trajectory import Prompt


def measure(
    model: Any, tokenizer: Any, task: Task, examples: Sequence[Example], max_new_tokens: int
) -> dict[str, float]:
    """Numbers by name: ``accuracy`` where the task has no environments, else the means of the outcomes' metrics.

    Args:
        max_new_tokens: longest response; of one turn in a conversation.
    """
    prompts = render(tokenizer, examples, task.name)
    environments = [task.make_environment(prompt) for prompt in prompts]
    users = [environment for environment in environments if environment is not None]
    if len(users) < len(prompts):
        return {"accuracy": greedy_accuracy(model, tokenizer, examples, max_new_tokens)}
    return asyncio.run(_converse(model, tokenizer, prompts, users, max_new_tokens))


def greedy_accuracy(model: Any, tokenizer: Any, examples: Sequence[Example], max_new_tokens: int) -> float:
    """Share of questions whose greedily decoded final answer equals the reference."""
    prompts = render(tokenizer, examples, "")
    rows = greedy_decode(model, [prompt.token_ids for prompt in prompts], tokenizer.eos_token_id, max_new_tokens)
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    right = [answer_equals(text, prompt.reference or "") for text, prompt in zip(texts, prompts, strict=True)]
    return sum(right) / len(right)


async def _converse(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], users: Sequence[Environment], max_new_tokens: int
) -> dict[str, float]:
    """Means of the outcomes' metrics; a conversation that fills the model's positions is cut."""
    chat, eos = ChatTokens(tokenizer), tokenizer.eos_token_id
    rows = [list(prompt.token_ids) for prompt in prompts]
    for index, (user, prompt) in enumerate(zip(users, prompts, strict=True)):
        greeting = await user.reset(prompt, index)
        if greeting:
            rows[index] = list(chat.opening([*prompt.messages, *greeting]))
    live = list(range(len(rows)))
    while live:
        said = greedy_decode(model, [rows[i] for i in live], eos, max_new_tokens, pad_token_id=tokenizer.pad_token_id)
        texts, going_on = tokenizer.batch_decode(said, skip_special_tokens=True), []
        for index, response, text in zip(live, said, texts, strict=True):
            observation = await users[index].step(text)
            # A response that was cut has no end token, in a rollout either.
            sampled = response if len(response) == max_new_tokens else [*response, eos]
            rows[index] += [*sampled, *chat.between(sampled, observation.messages)]
            if not observation.done and len(rows[index]) + max_new_tokens <= model.config.max_position_embeddings:
                going_on.append(index)
        live = going_on
    totals: dict[str, float] = defaultdict(float)
    for user in users:
        for name, value in user.outcome().metrics.items():
            totals[name] += value / len(users)
        await user.close()
    return dict(totals)
