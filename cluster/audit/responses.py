"""Responses to audit a reward with: gold-labelled ones from a file, or those that a run has logged."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actors.recording.trajectory_log import step_files
from cluster.config.run_config import RunConfig
from rollout.component.mistakes import BadLine, NoRows, NothingRecorded
from rollout.data.prompts import load_tokenizer, render
from rollout.tasks.base import Example
from rollout.tasks.json_values import NoJsonForm, json_value
from rollout.tasks.questions import as_written, is_chat_as_text
from rollout.tasks.rows import Row, find_files, hint, read_rows
from rollout.trajectory import FinishReason, Message, Outcome, Prompt, Trajectory

TASK = "audit"
GOLD_KEYS = ("prompt", "response", "gold", "reference", "prompt_id")


@dataclass(frozen=True, slots=True)
class Response:
    """One response, ready to be scored.

    Attributes:
        gold: what its score should be, or None.
        step: training step that it comes from, or 0.
    """

    prompt: Prompt
    trajectory: Trajectory
    gold: float | None
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    messages: tuple[Message, ...]
    response: str
    reference: str | None
    prompt_id: str
    extra: dict[str, Any]
    task: str = TASK
    gold: float | None = None
    step: int = 0
    finish_reason: FinishReason = FinishReason.STOP
    conversation: tuple[Message, ...] = ()
    outcome: Outcome | None = None


def gold_responses(config: RunConfig, path: Path, num_samples: int | None = None) -> list[Response]:
    """The responses of a gold file, or ``num_samples`` of them chosen by the run's seed.

    A row has ``prompt`` (a text, or a list of chat messages), ``response`` and ``gold`` (a number, or true or false),
    and may have ``reference`` and ``prompt_id``; other columns are given to the reward as the prompt's ``extra``.

    Raises:
        UserError: no such file, no rows, or a row that is not as above; the message has its place.
    """
    rows = [row for file in find_files(str(path)) for row in read_rows(file)]
    if not rows:
        raise NoRows(f"{path}: has no rows; each needs 'prompt', 'response' and 'gold'")
    return _responses(config, [_gold_entry(row) for row in rows], num_samples)


def logged_responses(config: RunConfig, num_samples: int | None = None) -> list[Response]:
    """The responses that a run of this configuration has logged, or ``num_samples`` of them chosen by its seed.

    Raises:
        UserError: the run has logged none, or a line cannot be read; the message has its place.
    """
    folder = config.run_dir / "trajectories"
    entries = [_logged_entry(row, step) for step, path in step_files(folder).items() for row in read_rows(path)]
    if not entries:
        raise NothingRecorded(
            f"{folder}: no trajectories to audit the reward with; train first, or give gold-labelled responses"
        )
    return _responses(config, entries, num_samples)


def _responses(config: RunConfig, entries: Sequence[_Entry], num_samples: int | None) -> list[Response]:
    """Choose, render and tokenize."""
    chosen = list(range(len(entries)))
    if num_samples is not None and num_samples < len(chosen):
        chosen = sorted(random.Random(config.seed).sample(chosen, num_samples))
    kept = [entries[index] for index in chosen]
    tokenizer = load_tokenizer(config.model.path, config.model.trust_remote_code)
    examples = [
        Example(example_id=entry.prompt_id, messages=entry.messages, reference=entry.reference, extra=entry.extra)
        for entry in kept
    ]
    prompts = render(tokenizer, examples, TASK)  # the name of each one's task follows
    tokens = tokenizer([entry.response for entry in kept], add_special_tokens=False)["input_ids"]
    seen: Counter[str] = Counter()
    found = []
    for entry, prompt, ids in zip(kept, prompts, tokens, strict=True):
        number, prompt_tokens = seen[entry.prompt_id], len(prompt.token_ids)
        # Indices as the samples of one prompt have them in a run: injected noise draws by them.
        seen[entry.prompt_id] += 1
        trajectory = Trajectory(
            prompt_id=entry.prompt_id,
            sample_index=number,
            token_ids=(*prompt.token_ids, *ids),
            action_mask=(False,) * prompt_tokens + (True,) * len(ids),
            # Nobody knows them here, and no reward reads them.
            rollout_logprobs=(0.0,) * (prompt_tokens + len(ids)),
            response_text=entry.response,
            finish_reason=entry.finish_reason,
            policy_version_min=entry.step,
            policy_version_max=entry.step,
            messages=entry.conversation,
            outcome=entry.outcome,
        )
        found.append(Response(replace(prompt, task=entry.task), trajectory, entry.gold, entry.step))
    return found


def _gold_entry(row: Row) -> _Entry:
    value = _object(row)
    for key in ("prompt", "response", "gold"):
        if key not in value:
            raise BadLine(f"{row.place}: no {key!r}; {hint(key, map(str, value), 'keys there')}")
    gold = value["gold"]
    if not isinstance(gold, bool | int | float) or not math.isfinite(gold):
        raise BadLine(f"{row.place}: 'gold' must be a number, or true or false, got {gold!r}")
    if is_chat_as_text(value["prompt"]):
        raise BadLine(f"{row.place}: 'prompt' holds a chat written as text; it must be the list of messages itself")
    messages = _messages(row, value["prompt"])
    prompt_id = value.get("prompt_id")
    if prompt_id is None:  # the same prompt is the same prompt wherever it stands
        prompt_id = "\n".join(message["content"] for message in messages)
    reference = value.get("reference")
    return _Entry(
        messages=messages,
        response=_text(row, "response", value["response"]),
        reference=None if reference is None else _text(row, "reference", reference),
        prompt_id=_text(row, "prompt_id", prompt_id),
        extra={key: _further(row, key, item) for key, item in value.items() if key not in GOLD_KEYS},
        gold=float(gold),
    )


def _further(row: Row, key: str, value: Any) -> Any:
    try:
        return json_value(value)
    except NoJsonForm as error:
        raise BadLine(f"{row.place}: {key!r} {error}") from error


def _logged_entry(row: Row, step: int) -> _Entry:
    value = _object(row)
    try:
        prompt_id = _text(row, "trajectory_id", value["trajectory_id"]).rpartition("#")[0]
        response, reference = _text(row, "response", value["response"]), value["reference"]
        return _Entry(
            messages=_messages(row, value["messages"]),
            response=response,
            reference=None if reference is None else _text(row, "reference", reference),
            prompt_id=prompt_id,
            extra=_named_values(row, value.get("extra", {})),  # logs of earlier versions have neither this
            task=_text(row, "task", value.get("task", TASK)),  # nor this
            step=step,
            finish_reason=FinishReason(value["finish_reason"]),
            conversation=_messages(row, value["conversation"]) if "conversation" in value else (),
            outcome=Outcome(**value["outcome"]) if "outcome" in value else None,
        )
    except KeyError as error:
        raise BadLine(f"{row.place}: no {error.args[0]!r}; not a line of a trajectory log of this version") from error
    except ValueError as error:
        raise BadLine(f"{row.place}: {error}; not a line of a trajectory log of this version") from error


def _object(row: Row) -> Mapping[str, Any]:
    if row.problem is not None:
        raise BadLine(f"{row.place}: {row.problem}")
    if not isinstance(row.value, dict):
        raise BadLine(f"{row.place}: every line must be one JSON object, got {type(row.value).__name__}")
    return row.value


def _text(row: Row, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadLine(f"{row.place}: {key!r} must be a text, got {value!r}")
    return str(as_written(value))


def _named_values(row: Row, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadLine(f"{row.place}: 'extra' must be an object, got {value!r:.80}")
    return value


def _messages(row: Row, value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        raise BadLine(
            f"{row.place}: the prompt must be a text or a list of {{'role': ..., 'content': ...}}, got {value!r:.80}"
        )
    return tuple({key: text for key, text in message.items() if isinstance(text, str)} for message in value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))
