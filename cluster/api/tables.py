"""What a run has written as Arrow tables.

``table.to_pandas()`` makes a data frame of pandas of one, ``polars.from_arrow(table)`` one of polars,
``pyarrow.parquet.write_table(table, path)`` a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from actors.ledger.all_samples import COLUMNS
from actors.ledger.scored_cells import ScoredCell
from cluster.report.metric_table import MetricTable
from cluster.report.samples import LoggedTrajectory

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TRAJECTORIES = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("prompt_id", pa.string()),
        ("step", pa.int64()),
        ("messages", MESSAGES),
        ("response", pa.string()),
        ("turns", MESSAGES),
        ("reference", pa.string()),
        ("observed", pa.float64()),
        ("clean", pa.float64()),
        ("corrected", pa.float64()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("finish_reason", pa.string()),
        ("version_min", pa.int64()),
        ("version_max", pa.int64()),
        ("engine", pa.string()),
    ]
)
TOKENS = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("step", pa.int64()),
        ("position", pa.int64()),
        ("text", pa.string()),
        ("sampled", pa.bool_()),
        ("advantage", pa.float64()),
        ("rollout_logprob", pa.float64()),
        ("old_logprob", pa.float64()),
        ("new_logprob", pa.float64()),
        ("levels", pa.list_(pa.float64())),
        ("values", pa.list_(pa.list_(pa.float64()))),
    ]
)
CELLS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("answer_key", pa.string()),
        ("num_scores", pa.int64()),
        ("sum_scores", pa.float64()),
        ("golds", pa.list_(pa.float64())),
    ]
)
EVENTS = pa.schema(
    [
        ("time", pa.float64()),
        ("step", pa.int64()),
        ("kind", pa.string()),
        ("level", pa.string()),
        ("text", pa.string()),
    ]
)
ANSWERS = pa.schema(
    [
        ("split", pa.string()),
        ("setting", pa.string()),
        ("sample_index", pa.int64()),
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("reference", pa.string()),
        ("response", pa.string()),
        ("conversation", MESSAGES),
        ("clean_reward", pa.float64()),
    ]
)
_INTEGERS = ("group_index", "epoch", "step", "num_tokens")
_NUMBERS = ("observed", "gold")
LEDGER = pa.schema(
    [(name, pa.int64() if name in _INTEGERS else pa.float64() if name in _NUMBERS else pa.string()) for name in COLUMNS]
)


def metric_frame(metrics: MetricTable) -> pa.Table:
    """A row for each line of ``metrics.jsonl``, a column for each key; null where a line does not have it."""
    columns = {
        "step": pa.array([line["step"] for line in metrics.lines], pa.int64()),
        "time": pa.array([line.get("time") for line in metrics.lines], pa.float64()),
    }
    # pa.array keeps NaN apart from None: measured and not finite, not measured.
    columns |= {key: pa.array([line.get(key) for line in metrics.lines], pa.float64()) for key in metrics.keys}
    return pa.table(columns)


def trajectory_frame(trajectories: Sequence[LoggedTrajectory]) -> pa.Table:
    """A row for each logged trajectory."""
    return _table(TRAJECTORIES, map(_trajectory_row, trajectories))


def token_frame(trajectories: Sequence[LoggedTrajectory]) -> pa.Table:
    """A row for each token of the trajectories of which tokens were recorded; see docs/report.md."""
    return _table(TOKENS, (row for trajectory in trajectories for row in _token_rows(trajectory)))


def ledger_frame(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A row for each sample of the ledger."""
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in LEDGER})


def cell_frame(cells: Iterable[ScoredCell]) -> pa.Table:
    """A row for each answer to a prompt, with all of its scores."""
    rows = (
        {
            "prompt_id": cell.prompt_id,
            "answer_key": cell.answer_key,
            "num_scores": cell.num_scores,
            "sum_scores": cell.sum_scores,
            "golds": list(cell.golds),
        }
        for cell in cells
    )
    return _table(CELLS, rows)


def event_frame(events: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A row for each line of ``events.jsonl``, without the details that only some have."""
    return _table(EVENTS, ({name: event.get(name) for name in EVENTS.names} for event in events))


def answer_frame(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A row for each answer of an evaluation, as ``dvpo eval --output`` writes it, without token ids and facts."""
    rows = (
        {
            **{name: record.get(name) for name in ANSWERS.names},
            "messages": list(map(_message, record["messages"])),
            "conversation": list(map(_message, record.get("conversation", ()))),
        }
        for record in records
    )
    return _table(ANSWERS, rows)


def _table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([_encodable(row) for row in rows], schema=schema)


def _encodable(value: Any) -> Any:
    """The value with '?' for halves of surrogate pairs, which no encoding has."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {key: _encodable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


def _trajectory_row(found: LoggedTrajectory) -> dict[str, Any]:
    row = {name: getattr(found, name) for name in TRAJECTORIES.names if hasattr(found, name)}
    version_min, version_max = found.versions or (None, None)
    return {
        **row,
        "messages": [_message(message) for message in found.prompt],
        "turns": [_message(message) for message in found.turns],
        "parts": list(found.parts.items()),
        "version_min": version_min,
        "version_max": version_max,
    }


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message.get("role"), "content": message.get("content")}


def _token_rows(found: LoggedTrajectory) -> Iterable[dict[str, Any]]:
    tokens = found.tokens
    if tokens is None:
        return
    values = tokens.values or [None] * len(tokens.texts)
    columns = (tokens.texts, tokens.sampled, tokens.advantages, tokens.sampler, tokens.old, tokens.new, values)
    for position, (text, sampled, advantage, sampler, old, new, quantiles) in enumerate(zip(*columns, strict=True)):
        yield {
            "trajectory_id": found.trajectory_id,
            "step": found.step,
            "position": position,
            "text": text,
            "sampled": sampled,
            "advantage": advantage,
            "rollout_logprob": sampler,
            "old_logprob": old,
            "new_logprob": new,
            "levels": list(tokens.levels),
            "values": quantiles,
        }
