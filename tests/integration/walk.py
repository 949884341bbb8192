"""Sixty configurations: rewards x shapes of data x files beside a model's weights, and what is wrong with each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

Row = dict[str, Any]
NUM_TRAIN, NUM_TEST = 12, 4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of data.

    Attributes:
        row: the row of a number.
        ending: of its files.
        options: of the task, beside the files.
        answers: what its answers are: ``number``, ``letter``, ``text``, ``equation``, ``none``.
        roles: that its prompts have besides the user's.
        error: how what is wrong with it by itself begins, whatever the reward.
        size: its training questions.
    """

    row: Callable[[int], Row]
    ending: str = "jsonl"
    options: Row | None = None
    answers: str = "number"
    roles: frozenset[str] = frozenset()
    error: str = ""
    size: int = NUM_TRAIN


def chat(number: int, *roles: str) -> list[dict[str, str]]:
    """Messages of these roles, and the user's question."""
    return [*({"role": role, "content": "be brief"} for role in roles), {"role": "user", "content": f"{number}+1"}]


OWN = "tests.integration.own_parts:"
SHAPES: dict[str, Shape] = {
    "numbers": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": n + 1}),
    "chats": Shape(row=lambda n: {"messages": chat(n, "system"), "answer": str(n + 1)}, roles=frozenset({"system"})),
    "two turns": Shape(
        row=lambda n: {"messages": [*chat(n), *chat(n)], "answer": str(n + 1)}, roles=frozenset({"user"})
    ),
    "chat as text": Shape(
        row=lambda n: {"prompt": json.dumps(chat(n)), "answer": n}, error=": column 'prompt' holds a chat"
    ),
    "chat in a column": Shape(
        row=lambda n: {"talk": json.dumps(chat(n)), "answer": f"{n}.50"},
        options={"prompt_column": None, "messages_column": "talk"},
    ),
    "a gap": Shape(
        row=lambda n: {"prompt": f"{n}+1", "answer": None if n == 3 else float(n)}, ending="parquet", answers="gap"
    ),
    "many columns": Shape(
        row=lambda n: {
            "prompt": f"{n}+1",
            "answer": n,
            "when": datetime(2031, 2, 5, n, tzinfo=UTC),
            "price": Decimal("1.10"),
            "took": timedelta(seconds=n),
            "raw": bytes([n, 255]),
            "share": float("nan"),
        },
        ending="parquet",
    ),
    "letters": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": "ABCD"[n % 4]}, answers="letter"),
    "letters in brackets": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": f"({'ABCD'[n % 4]})"}, answers="text"),
    "units": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": f"{n} km"}, answers="text"),
    "equations": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": f"x={n}"}, answers="equation"),
    "solutions": Shape(row=lambda n: {"prompt": f"{n}+1", "answer": f"{n}+1 is easy\n#### {n + 1}"}, answers="lines"),
    "no answers": Shape(row=lambda n: {"prompt": f"{n}+1"}, answers="none"),
    "some wrong": Shape(
        row=lambda n: {"prompt": f"{n}+1", "answer": "? km" if n == 5 else n},
        options={"on_bad_row": "reject", "rejects": "rejected.txt", "max_reject_frac": 0.1},
        answers="mostly numbers",
    ),
    "one question": Shape(row=lambda n: {"prompt": "1+1", "answer": 2, "id": f"q{n // NUM_TRAIN}"}, size=1),
    "long ones": Shape(
        row=lambda n: {"prompt": "1+" * (n == 7) * 40 + f"{n}", "answer": n},
        options={"on_bad_row": "reject", "rejects": "rejected.txt", "max_reject_frac": 0.1},
    ),
    "games": Shape(
        row=lambda n: {"prompt": f"{n}+1", "answer": n, "game": True},
        options={"environment": {"type": f"{OWN}Echo"}},
    ),
    "broken games": Shape(
        row=lambda n: {"prompt": f"{n}+1", "answer": n, "game": True},
        options={"environment": {"type": f"{OWN}UnplayableEcho"}},
        error="data.task.environment: OSError: no board (raised while ",
    ),
}

REWARDS: dict[str, Row] = {
    "exact": {"type": "exact_match"},
    "digits": {"type": "exact_match", "answer_pattern": "([0-9.]+)"},
    "numeric": {"type": "numeric", "source": "last_number", "rel_tol": 0.01},
    "choice": {"type": "multiple_choice"},
    "math": {"type": "math_verify"},
    "format": {"type": "response_format", "pattern": ".*[0-9].*", "require_stop": False},
    "remote": {"type": "remote", "url": "SERVER"},
    "model": {"type": "model", "path": "JUDGE", "output": "probability", "max_tokens": 128},
    "outcome": {"type": "outcome", "metrics": {"heard": 0.5}},
    "function": {"type": f"{OWN}length", "limit": 8},
    "class": {"type": f"{OWN}Weighed"},
    "unlicensed": {"type": f"{OWN}Unlicensed"},
}
USABLE: dict[str, set[str]] = {
    "exact": {"number", "letter", "text", "gap", "mostly numbers"},
    "digits": {"number", "gap", "mostly numbers"},
    "numeric": {"number", "gap", "mostly numbers"},
    "choice": {"letter"},
    "math": {"number", "letter", "text", "gap", "equation", "lines", "mostly numbers"},
    "class": {"number", "gap", "mostly numbers"},
}
"""Kinds of answers that a reward can use; of others it uses any."""


def change(folder: Path, file: str, **values: Any) -> None:
    """Change keys of a JSON file."""
    path = folder / file
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def refuse(folder: Path, condition: str) -> None:
    """A chat template that refuses what a condition says."""
    path = folder / "chat_template.jinja"
    path.write_text(f"{{% if {condition} %}}{{{{ raise_exception('not so') }}}}{{% endif %}}" + path.read_text())


@dataclass(frozen=True, kw_only=True)
class Model:
    """Files beside a model's weights.

    Attributes:
        spoil: changes a copy of the model.
        error: how what is wrong begins; empty if a run only carries it.
        refuses: roles that its chat template refuses beside the user's question.
    """

    spoil: Callable[[Path], object]
    error: str = ""
    refuses: str = ""


MODELS: dict[str, Model] = {
    "plain": Model(spoil=lambda folder: None),
    "sampling values": Model(
        spoil=lambda folder: change(folder, "generation_config.json", temperature=0.6, top_p=0.9, top_k=20)
    ),
    "zero": Model(spoil=lambda folder: change(folder, "generation_config.json", temperature=0, pad_token_id=-1)),
    "further files": Model(spoil=lambda folder: (folder / "LICENSE.txt").write_bytes(b"\xff all rights")),
    "several ends": Model(spoil=lambda folder: change(folder, "generation_config.json", eos_token_id=[2, 5])),
    "short tokenizer": Model(spoil=lambda folder: change(folder, "tokenizer_config.json", model_max_length=8)),
    "folders": Model(spoil=lambda folder: (folder / "onnx").mkdir()),
    "broken notes": Model(spoil=lambda folder: (folder / "preprocessor_config.json").write_text("{")),
    "no system": Model(
        spoil=lambda folder: refuse(folder, "messages[0]['role'] == 'system'"),
        refuses="system",
    ),
    "one turn": Model(
        spoil=lambda folder: refuse(folder, "messages|selectattr('role', 'equalto', 'user')|list|length > 1"),
        refuses="user",
    ),
    "no JSON": Model(
        spoil=lambda folder: (folder / "generation_config.json").write_text("{"),
        error="generation_config.json is not valid JSON",
    ),
    "too many tokens": Model(
        spoil=lambda folder: change(folder, "config.json", vocab_size=8), error="its model only 8"
    ),
}


@dataclass(frozen=True)
class Walk:
    """One configuration."""

    reward: str
    shape: str
    model: str

    def __str__(self) -> str:
        return f"{self.reward}-{self.shape}-{self.model}".replace(" ", "_")

    def mistakes(self) -> list[str]:
        """What must be told, from the tables above alone; nothing if it can run."""
        shape, model = SHAPES[self.shape], MODELS[self.model]
        found = [text for text in (shape.error, model.error) if text]
        if self.reward == "unlicensed":
            found.append("reward.functions.0: SystemExit: no licence (raised while ")
        if "chat" not in shape.error and shape.answers not in USABLE.get(self.reward, {shape.answers}):
            # Of a column with one bad row the rest is used, unless nothing else is right either.
            found.append("reward.functions.0: cannot use ")
        if model.refuses and (model.refuses in shape.roles or (model.refuses, self.shape) == ("user", "games")):
            found.append("the chat template")
        if self.reward == "outcome" and self.shape not in ("games", "broken games", "chat as text"):
            found.append("'outcome' is the verdict of an environment")
        return found


def walks() -> list[Walk]:
    """Sixty of them: each reward with five shapes, each shape and each model about equally often."""
    rewards, shapes, models = list(REWARDS), list(SHAPES), list(MODELS)
    # Rewards that need something of the data are shown it at least once, with a model that can be used.
    wanted = {"digits": "a gap", "choice": "letters", "outcome": "games", "unlicensed": "numbers"}
    found = []
    for index, reward in enumerate(rewards):
        for turn in range(5):
            shape = shapes[(3 * index + 4 * turn) % len(shapes)]
            model = models[(3 * index + 5 * turn) % len(models)]
            if turn == 0:
                shape, model = wanted.get(reward, shape), "plain"
            found.append(Walk(reward, shape, model))
    return found


def write_data(folder: Path, shape: Shape) -> Row:
    """Write the files of a shape; returns the section ``data.task``."""
    numbers = {"train": range(shape.size), "test": range(NUM_TRAIN, NUM_TRAIN + min(NUM_TEST, shape.size))}
    for split, members in numbers.items():
        rows = [shape.row(number) for number in members]
        file = folder / f"{split}.{shape.ending}"
        if shape.ending == "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = dict(shape.options or {})
    if "rejects" in options:
        options["rejects"] = str(folder / options["rejects"])
    files = {split: str(folder / f"{split}.{shape.ending}") for split in numbers}
    return {"type": "dataset", "train": files["train"], "eval": {"test": files["test"]}, **options}


def write_model(folder: Path, start: Path, model: Model) -> Path:
    """A copy of the starting model with the files changed."""
    copy = folder / "model"
    shutil.copytree(start, copy)
    model.spoil(copy)
    return copy
