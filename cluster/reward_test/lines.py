"""Labelled lines: a response, what it is compared with, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig
from rollout.component import UserError
from rollout.component.mistakes import BadLine, NoRows
from rollout.tasks.rows import Row, find_files, hint, read_rows
from rollout.trajectory import FinishReason, Message, Outcome, Prompt, Trajectory

LABELS = ("label", "expected")
"""Columns that may hold the label."""
USED = ("prompt", "messages", "response", "reference", "finish_reason", "prompt_id", "conversation", "outcome", *LABELS)
MAX_PROBLEMS = 20
"""Bad lines that one message names."""


@dataclass(frozen=True, slots=True)
class LabelledLine:
    """One line, ready to be scored.

    Attributes:
        place: file and line, for messages.
        is_right: what the reward should say.
    """

    place: str
    prompt: Prompt
    trajectory: Trajectory
    is_right: bool


class _BadLine(Exception):
    """What is wrong with a line, without its place."""


def read_lines(config: RunConfig, path: Path) -> list[LabelledLine]:
    """The lines of a JSONL (or Parquet or Arrow) file.

    A line has ``response`` and ``label`` (or ``expected``): true or 1 if the response is right, false, 0 or "no_answer"
    if it is not. It may have ``reference`` (otherwise the answer column of the configuration's data set), ``prompt`` or
    ``messages``, ``prompt_id``, ``finish_reason``, and ``conversation`` and ``outcome`` of an environment; other
    columns are given to the reward as the prompt's ``extra``.

    Raises:
        UserError: no such file, no lines, or bad ones; the message has the place of each, up to :data:`MAX_PROBLEMS`.
    """
    answer_column = str(config.data.task.options.get("answer_column") or "answer")
    found, problems = [], []
    for file in find_files(str(path)):
        for row in read_rows(file):
            try:
                found.append(_labelled(row, answer_column))
            except _BadLine as problem:
                problems.append(str(BadLine(f"{row.place}: {problem}")))
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more bad lines"] if len(problems) > MAX_PROBLEMS else []
        raise UserError("\n".join([*problems[:MAX_PROBLEMS], *more]))
    if not found:
        raise NoRows(f"{path}: has no lines; each needs 'response' and 'label'")
    return found


def _labelled(row: Row, answer_column: str) -> LabelledLine:
    if row.problem is not None:
        raise _BadLine(row.problem)
    value = row.value
    if not isinstance(value, dict):
        raise _BadLine(f"every line must be one JSON object, got {type(value).__name__}")
    if "response" not in value:
        raise _BadLine(f"no 'response'; {hint('response', map(str, value), 'keys there')}")
    prompt_id = _text(value.get("prompt_id") or row.place, "prompt_id")
    reference = value.get("reference", value.get(answer_column))
    extra = {key: item for key, item in value.items() if key not in (*USED, answer_column)}
    messages = _messages(value.get("messages", value.get("prompt", ())), "prompt")
    prompt = Prompt(
        prompt_id=prompt_id,
        messages=messages,
        token_ids=(),
        reference=None if reference is None else _text(reference, "reference"),
        task="test",
        extra=extra,
    )
    return LabelledLine(row.place, prompt, _trajectory(prompt_id, value), _label(value))


def _trajectory(prompt_id: str, value: Mapping[str, Any]) -> Trajectory:
    """The response; it has no tokens, as no tokenizer is needed to judge a text."""
    reason = value.get("finish_reason", FinishReason.STOP)
    if reason not in ("stop", "length"):
        raise _BadLine(f"'finish_reason' must be stop or length, got {reason!r}")
    return Trajectory(
        prompt_id=prompt_id,
        sample_index=0,
        token_ids=(),
        action_mask=(),
        rollout_logprobs=(),
        response_text=_text(value["response"], "response"),
        finish_reason=FinishReason(reason),
        policy_version_min=0,
        policy_version_max=0,
        messages=_messages(value.get("conversation", ()), "conversation"),
        outcome=_outcome(value["outcome"]) if value.get("outcome") is not None else None,
    )


def _label(value: Mapping[str, Any]) -> bool:
    given = [key for key in LABELS if value.get(key) is not None]
    if len(given) != 1:
        found = "no 'label'" if not given else "both 'label' and 'expected'"
        raise _BadLine(f"{found}; give one: true or 1 if the response is right, false or 0 if it is not")
    label = value[given[0]]
    verdicts = {_verdict(one, given[0]) for one in (label if isinstance(label, list) and label else [label])}
    if len(verdicts) > 1:
        raise _BadLine(f"{given[0]!r} must name right scores or wrong ones, not both, got {label!r}")
    return verdicts.pop()


def _verdict(label: Any, key: str) -> bool:
    if label == "no_answer":
        return False
    if not isinstance(label, bool | int | float) or label not in (0, 1):
        raise _BadLine(
            f"{key!r} must be true or 1 if the response is right, false, 0 or 'no_answer' if not, got {label!r}"
        )
    return bool(label)


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _BadLine(f"{key!r} must be a text, got {value!r:.80}")
    return str(value)


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    is_chat = isinstance(value, list | tuple) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in value
    )
    if not is_chat:
        raise _BadLine(f"{key!r} must be a text or a list of {{'role': ..., 'content': ...}}, got {value!r:.80}")
    return tuple({"role": one["role"], "content": one["content"]} for one in value)


def _outcome(value: Any) -> Outcome:
    metrics = value.get("metrics", {}) if isinstance(value, dict) else None
    if not isinstance(metrics, dict) or not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in metrics.values()
    ):
        raise _BadLine(f"'outcome' must be {{'metrics': {{name: number}}}}, got {value!r:.80}")
    return Outcome({name: float(number) for name, number in metrics.items()}, dict(value.get("facts", {})))
