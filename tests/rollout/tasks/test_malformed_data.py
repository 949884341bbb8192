"""Malformed data sets through ``dvpo check``, with ``on_bad_row: error`` and ``reject``: nothing vanishes silently."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from cluster.cli import main
from cluster.config.prompts import load_prompts
from cluster.config.run_config import load_config

NUM_GOOD = 3
GOOD = [{"prompt": f"{n}+1", "answer": str(n + 1)} for n in range(NUM_GOOD)]
LONG = {"prompt": "1+" * 40 + "1", "answer": "41"}
RUN = """\
name: small
model: {{path: {model}}}
data:
  task:
    type: dataset
    train: [data/train.jsonl]
    eval: {{test: [data/test.jsonl]}}
algorithm: {{preset: ppo}}
rollout:
  max_prompt_tokens: 32
  sampling: {{max_response_tokens: 24}}
training: {{num_steps: 2, prompts_per_step: 1, samples_per_prompt: 2}}
cluster: {{cpus_per_rollout_worker: 0.5, cpus_per_learner_worker: 0.5, object_store_mib: 96}}
reward: {{functions: [{{type: response_format, pattern: ".+"}}]}}  # which compares with no answer
"""


@dataclass(frozen=True)
class Case:
    """One malformed data set.

    Attributes:
        content: bytes of data/train.jsonl, or what writes the files.
        message: how the error begins, with file and line; the first of several.
        numbers: rows that are rejected if bad rows may be; none: an error whatever the mode.
        options: of the task, further ones.
        split: whose rows are rejected.
    """

    content: bytes | Callable[[], None]
    message: str
    numbers: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    split: str = "train"


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def after_good(*rows: Any) -> bytes:
    return lines(*GOOD, *rows)


def columns(*rows: dict[str, Any]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist([*GOOD, *rows])


def in_parquet(*rows: dict[str, Any]) -> Callable[[], None]:
    return lambda: parquet.write_table(columns(*rows), "data/train.parquet")


def bad_text() -> None:
    text = pyarrow.array([b"1+1", b"2+1", b"3+1", b"\xff"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"prompt": text}), "data/train.parquet")


def column_twice() -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["prompt", "prompt"])
    parquet.write_table(table, "data/train.parquet")


def cut_parquet() -> None:
    in_parquet()()
    Path("data/train.parquet").write_bytes(Path("data/train.parquet").read_bytes()[:-20])


def nothing() -> None:
    """No training file at all."""


def no_parquet() -> None:
    Path("data/train.parquet").write_bytes(lines(*GOOD))


def in_arrow(*rows: dict[str, Any], cut: int = 0) -> Callable[[], None]:
    def write() -> None:
        table = columns(*rows)
        with pyarrow.OSFile("data/train.arrow", "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        content = Path("data/train.arrow").read_bytes()
        Path("data/train.arrow").write_bytes(content[: len(content) - cut])

    return write


def two_files() -> None:
    Path("data/a.jsonl").write_bytes(lines(*[row | {"id": n} for n, row in enumerate(GOOD)]))
    Path("data/b.jsonl").write_bytes(lines({"prompt": "q", "id": 7}, {"prompt": "r", "id": 2}))


def long_in_test() -> None:
    Path(TRAIN).write_bytes(lines(*[{"prompt": f"{n}+2", "answer": "2"} for n in range(3)]))
    Path("data/test.jsonl").write_bytes(after_good(LONG))


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


TRAIN = "data/train.jsonl"
PARQUET = {"train": "data/train.parquet"}
ARROW = {"train": "data/train.arrow"}
WHOLE = "data.task.train.0: data/train"
CASES = {
    # rows
    "bad UTF-8": Case(after_good(b'{"prompt": "\xe9"}'), f"{TRAIN}:4: not UTF-8: byte 0xe9", (4,)),
    "last line is cut": Case(after_good(b'{"prompt": "1+1", "answ'), f"{TRAIN}:4: not valid JSON: ", (4,)),
    "no JSON": Case(after_good(b"prompt,answer"), f"{TRAIN}:4: not valid JSON: Expecting value", (4,)),
    "key twice": Case(after_good(b'{"prompt": "a", "prompt": "b"}'), f"{TRAIN}:4: not valid JSON: key", (4,)),
    "missing column": Case(after_good({"promt": "1"}), f"{TRAIN}:4: no column 'prompt' or 'messages'; did you", (4,)),
    "no object": Case(after_good([1]), f"{TRAIN}:4: a row must be an object", (4,)),
    "wrong type": Case(after_good({"prompt": 5}), f"{TRAIN}:4: column 'prompt' must be text, not a number", (4,)),
    "null": Case(after_good({"prompt": None}), f"{TRAIN}:4: column 'prompt' is null", (4,)),
    "empty": Case(after_good({"prompt": "\t"}), f"{TRAIN}:4: column 'prompt' is empty", (4,)),
    "half a character": Case(after_good({"prompt": "\ud83d"}), f"{TRAIN}:4: column 'prompt' has half a", (4,)),
    "NaN answer": Case(after_good(GOOD[0] | {"answer": float("nan")}), f"{TRAIN}:4: column 'answer' must", (4,)),
    "no answer": Case(after_good({"prompt": "1"}), f"{TRAIN}:4: no column 'answer'", (4,), {"require_answer": "true"}),
    "both kinds": Case(after_good(GOOD[0] | chat(("user", "1"))), f"{TRAIN}:4: both columns 'prompt' and", (4,)),
    "unknown role": Case(after_good(chat(("usr", "1"))), f"{TRAIN}:4: column 'messages', message 1: unknown", (4,)),
    "answered chat": Case(after_good(chat(("user", "1"), ("assistant", "2"))), f"{TRAIN}:4: column 'messages'", (4,)),
    "id twice": Case(
        lines(*[row | {"id": n % 2} for n, row in enumerate(GOOD)], GOOD[0] | {"id": 5}, GOOD[1] | {"id": 6}),
        f"{TRAIN}:3: id '0' is taken by {TRAIN}:1",
        (3,),
    ),
    "id twice in two files": Case(
        two_files, "data/b.jsonl:2: id '2' is taken by data/a.jsonl:3", (2,), {"train": "data/[ab].jsonl"}
    ),
    "over-long prompt": Case(
        lines(LONG, *GOOD, LONG),
        "rollout.max_prompt_tokens: 2 of 5 prompts of split 'train' are longer than 32 tokens; the "
        f"longest, {TRAIN}:1, has ",
        (1, 5),
    ),
    "over-long prompt in a held-out split": Case(
        long_in_test,
        "rollout.max_prompt_tokens: 1 of 4 prompts of split 'test' are longer than 32 tokens; the "
        "longest, data/test.jsonl:4, has ",
        (4,),
        split="test",
    ),
    "Parquet: bad UTF-8": Case(bad_text, "data/train.parquet, row 4: text that is not UTF-8", (4,), PARQUET),
    "Parquet: null": Case(
        in_parquet({"prompt": None}), "data/train.parquet, row 4: column 'prompt' is null", (4,), PARQUET
    ),
    "Arrow: empty": Case(in_arrow({"prompt": ""}), "data/train.arrow, row 4: column 'prompt' is empty", (4,), ARROW),
    # whole files
    "missing column everywhere": Case(lines(*[{"question": "q"}] * 3), f"{TRAIN}:1: no column 'prompt'"),
    "empty file": Case(b"", f"{WHOLE}.jsonl: the file has no rows"),
    "blank file": Case(b"\n \n", f"{WHOLE}.jsonl: the file has no rows"),
    "UTF-16": Case(json.dumps(GOOD[0]).encode("utf-16"), f"{TRAIN}:1: not UTF-8: byte 0xff at position 1"),
    "compressed": Case(gzip.compress(lines(*GOOD), mtime=0), f"{TRAIN}:1: not UTF-8: byte 0x8b at position 2"),
    "one JSON text": Case(json.dumps(GOOD, indent=1).encode(), f"{TRAIN}:1: not valid JSON: Expecting value"),
    "missing file": Case(nothing, f"{WHOLE}.parquet: no such file; data files there: test", options=PARQUET),
    "no Parquet": Case(no_parquet, f"{WHOLE}.parquet: not a readable Parquet file: ", options=PARQUET),
    "cut Parquet": Case(cut_parquet, f"{WHOLE}.parquet: not a readable Parquet file: ", options=PARQUET),
    "Parquet: column twice": Case(column_twice, f"{WHOLE}.parquet: column 'prompt' is there twice", options=PARQUET),
    "cut Arrow": Case(in_arrow(cut=8), f"{WHOLE}.arrow: not a readable Arrow file: the end", options=ARROW),
}


@pytest.fixture
def check(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Check ``run.yaml`` with options of the task; the held-out split is good."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/test.jsonl").write_bytes(lines({"prompt": "9+9", "answer": "18"}))
    Path("run.yaml").write_text(RUN.format(model=tiny_model))

    def run(**options: str) -> Result:
        settings = [part for key, value in options.items() for part in ("--set", f"data.task.{key}={value}")]
        result = CliRunner().invoke(main, ["check", "run.yaml", *settings], prog_name="dvpo")
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def write(content: bytes | Callable[[], None]) -> None:
    if isinstance(content, bytes):
        Path(TRAIN).write_bytes(content)
    else:
        content()


def errors(result: Result) -> list[str]:
    assert result.exit_code == 2, result.output
    return [line.removeprefix("error: ") for line in result.output.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_error(case: Case, check: Callable[..., Result]) -> None:
    write(case.content)
    found = errors(check(**case.options))
    assert any(case.message in line for line in found), found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_reject(case: Case, check: Callable[..., Result], tiny_model: Path) -> None:
    write(case.content)
    options = case.options | {"on_bad_row": "reject", "rejects": "bad.jsonl", "max_reject_frac": "0.5"}
    result = check(**options)
    if not case.numbers:
        (found,) = errors(result)
        assert case.message in found or (": all " in found and f" rows are bad; the last is {TRAIN}:" in found)
        assert not Path("bad.jsonl").exists()
        return
    assert result.exit_code == 0, result.output
    rejects = Path("bad.jsonl").read_text()
    rows = [json.loads(line) for line in rejects.splitlines()]
    assert [(reject["split"], reject["number"]) for reject in rows] == [(case.split, n) for n in case.numbers]
    assert all(reject["reason"] and reject["row"] is not None for reject in rows) or "UTF-8" in rows[0]["reason"]
    total = rows_on_disk(case)
    warning = f"data.task.rejects: rows are rejected ({case.split} {len(rows)} of {total}); see bad.jsonl"
    assert warning in result.output
    config = load_config(Path("run.yaml"), [f"data.task.{key}={value}" for key, value in options.items()])
    prompts = load_prompts(config, str(tiny_model))  # what a run does
    kept = {"train": len(prompts.training), "test": len(prompts.held_out["test"])}
    assert kept[case.split] + len(rows) == total
    assert Path("bad.jsonl").read_text() == rejects
    assert warning in prompts.remarks


def rows_on_disk(case: Case) -> int:
    """Rows of the split's files, counted in another way."""
    pattern = case.options.get("train", TRAIN) if case.split == "train" else "data/test.jsonl"
    (path, *more) = sorted(Path().glob(pattern))
    if path.suffix == ".jsonl":
        return sum(len(file.read_bytes().splitlines()) for file in (path, *more))
    if path.suffix == ".parquet":
        return int(parquet.read_metadata(path).num_rows)
    with pyarrow.memory_map(str(path)) as file:
        return int(pyarrow.ipc.open_stream(file).read_all().num_rows)
