"""Writes a starter project: configuration, reward or environment, a sample of data, and what to do with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rollout.component.mistakes import NotWritable

KINDS = {
    "math": "Word problems with a number as the answer.",
    "qa": "Questions with choices, of which one is right.",
    "dialogue": "Conversations of several turns with a simulated customer.",
    "own": "Prompts and a reward of your own.",
}
"""Kinds of projects, and what each is in a sentence."""
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
"""The starting model if none is named: small, and it follows instructions."""
_PARTS = ("data.yaml", "reward.yaml", "lengths.yaml", "about.md", "files.md")
"""Files of a kind that are filled into the common ones."""
_SAMPLES = ("train.jsonl", "test.jsonl")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write_project(folder: Path, kind: str, model: str = MODEL) -> list[Path]:
    """Write a project into a folder, which is made; returns its files.

    Args:
        kind: one of :data:`KINDS`.
        model: folder or hub id of the starting model.

    Raises:
        UserError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise NotWritable(f"FOLDER: {folder} {what}; name a new folder, so that nothing of yours is replaced")
    written = []
    try:
        for name, text in _project(_run_name(folder), kind, model):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise NotWritable(f"FOLDER: {folder} cannot be written: {error.strerror}") from error
    return written


def _run_name(folder: Path) -> str:
    """The folder's name, made fit for that of a run."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("-._")[:100] or "run"


def _project(name: str, kind: str, model: str) -> Iterator[tuple[str, str]]:
    """Names and contents of the files."""
    root = files("cluster.config.starter") / "projects"
    own = root / kind
    # JSON is YAML too, and quotes what YAML would take for something else than a text.
    quoted = {"quoted_name": json.dumps(name), "quoted_model": json.dumps(model, ensure_ascii=False)}
    parts = {"name": name, "title": KINDS[kind], **quoted}
    parts |= {part.rpartition(".")[0]: _read(own / part).rstrip("\n") for part in _PARTS}
    for common in ("config.yaml", "README.md"):
        yield common, _PLACE.sub(lambda place: parts[place[1]], _read(root / "common" / common))
    for file in sorted(own.iterdir(), key=lambda file: file.name):
        if file.name not in _PARTS:
            # Code of a project is no module of this package, so it has another ending here.
            place = f"data/{file.name}" if file.name in _SAMPLES else file.name.removesuffix(".txt")
            yield place, _read(file)


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
