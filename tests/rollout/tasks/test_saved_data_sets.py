"""Arrow files and folders as ``datasets`` saves them (``Dataset.save_to_disk``), read without that library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from rollout.component import UserError
from rollout.tasks.base import Example
from rollout.tasks.dataset import Dataset

ROWS = [{"prompt": f"{n}+1", "answer": n + 1, "level": n % 3} for n in range(2500)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder with a held-out split."""
    monkeypatch.chdir(tmp_path)
    Path("test.jsonl").write_text('{"prompt": "held out", "answer": 1}\n')


def write_arrow(path: str, rows: Sequence[dict[str, Any]], chunk: int = 1000, form: str = "stream") -> None:
    table = pyarrow.Table.from_pylist(list(rows))
    make = {"stream": pyarrow.ipc.new_stream, "file": pyarrow.ipc.new_file}[form]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(path, "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=chunk)


def save(folder: str, *shards: Sequence[dict[str, Any]]) -> None:
    """What ``Dataset.save_to_disk(folder, num_shards=...)`` leaves behind (version 5.2)."""
    names = [f"data-{n:05d}-of-{len(shards):05d}.arrow" for n in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        write_arrow(f"{folder}/{name}", rows)
    Path(folder).mkdir(parents=True, exist_ok=True)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f793a3aad0c3808d", "_split": None}
    Path(folder, "state.json").write_text(json.dumps(state))
    Path(folder, "dataset_info.json").write_text("{}")


def train(source: str) -> Sequence[Example]:
    return Dataset(Dataset.Config(train=(source,), eval={"test": ("test.jsonl",)})).examples("train")


def refusal(source: str) -> str:
    with pytest.raises(UserError) as caught:
        train(source)
    return str(caught.value).removeprefix("data.task.train.0: ")


def questions(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {"prompt": e.messages[0]["content"], "answer": int(e.reference or ""), "level": e.extra["level"]}
        for e in examples
    ]


def test_a_saved_data_set_is_its_files_in_order() -> None:
    save("sets/train", ROWS[:1300], ROWS[1300:])
    found = train("sets/train")
    assert questions(found) == ROWS
    assert [found[n].example_id for n in (0, 1299, 1300, 2499)] == [
        "data-00000-of-00002.arrow:1",
        "data-00000-of-00002.arrow:1300",
        "data-00001-of-00002.arrow:1",
        "data-00001-of-00002.arrow:1200",
    ]
    assert found[2499].place == "sets/train/data-00001-of-00002.arrow, row 1200"
    assert train("sets/train/*.arrow") == found


@pytest.mark.parametrize("form", ["stream", "file"])
def test_both_formats_and_batches_of_any_size(form: str) -> None:
    write_arrow("a.arrow", ROWS, chunk=2200, form=form)
    found = train("a.arrow")
    assert questions(found) == ROWS
    assert found[2300].example_id == "a.arrow:2301"


def test_folders_that_cannot_be_read() -> None:
    save("sets/train", ROWS[:2], ROWS[2:4])
    save("sets/test", ROWS[:1])
    save("empty")
    message = "sets: has several saved data sets; give one of them: sets/test, sets/train [file-not-found]"
    assert refusal("sets") == message
    assert refusal("empty") == "empty: the saved data set has no rows [data-empty]"
    Path("sets/train/data-00001-of-00002.arrow").unlink()
    message = "sets/train: 1 of its 2 files are missing, the first is 'data-00001-of-00002.arrow' [file-not-found]"
    assert refusal("sets/train") == message
    for content in ("{}", "[]", "no JSON", '{"_data_files": [{"name": 1}]}'):
        Path("sets/test/state.json").write_text(content)
        assert refusal("sets/test").startswith("sets/test/state.json: not written by Dataset.save_to_disk: ")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_cut_files(form: str) -> None:
    """Wherever a file ends too early, no row of it is lost unnoticed."""
    write_arrow("a.arrow", ROWS[:20], chunk=5, form=form)
    content = Path("a.arrow").read_bytes()
    for length in range(0, len(content), 7):
        Path("a.arrow").write_bytes(content[:length])
        message = refusal("a.arrow")
        assert message.startswith("a.arrow: not a readable Arrow file"), (length, message)
        assert len(message.splitlines()) == 1
