"""Data sets by name: the form of the name, and real ones of the library ``datasets`` that lie in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.tasks import TASKS
from rollout.tasks.base import Task
from rollout.tasks.libraries.hub import FORM, hub_files

ROWS = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n), "level": n % 2} for n in range(5)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:owner/sums:train", ("owner/sums", None, None, "train")),
        ("hub:owner/sums:main:test", ("owner/sums", None, "main", "test")),
        ("hub:owner/sums@a1b2:main:test", ("owner/sums", "a1b2", "main", "test")),
    ],
)
def test_the_parts_of_a_name(text: str, parts: tuple[str | None, ...]) -> None:
    found = FORM.fullmatch(text)
    assert found is not None and found.group("name", "revision", "subset", "split") == parts


@pytest.mark.parametrize("text", ["hub:owner/sums", "hub::train", "hub:owner/sums:train[:10]", "hub:a:b:c:d"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"a data set by name is hub:NAME:SPLIT or hub:NAME:SUBSET:SPLIT"):
        hub_files(text)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hub:a/b:train: needs the package datasets: pip install 'dvpo\[datasets\]'"):
        hub_files("hub:a/b:train")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for split, rows in (("train", ROWS), ("test", [{**ROWS[0], "prompt": "What is 9 + 9?", "answer": "18"}])):
        path = tmp_path / "sums" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "sums"


def task(train: str, test: str) -> Any:
    options = {"train": train, "eval": {"test": test}}
    return build(ComponentSpec(type="dataset", **options), TASKS, Task, "data.task")


def test_a_data_set_that_the_library_loads_by_name(folder: Path) -> None:
    found = task("hub:sums:train", "hub:./sums:test")
    assert [(e.messages[0]["content"], e.reference, e.extra) for e in found.examples("train")] == [
        (row["prompt"], row["answer"], {"level": row["level"]}) for row in ROWS
    ]
    assert [example.reference for example in found.examples("test")] == ["18"]


def test_what_it_cannot_load_is_told_with_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, words in (("hub:summs:train", "datasets cannot load it: "), ("hub:sums:dev", 'Unknown split "dev"')):
        with pytest.raises(UserError) as told:
            task(name, "hub:sums:test").examples("train")
        assert str(told.value).startswith(f"data.task.train.0: {name}: ") and words in str(told.value)
