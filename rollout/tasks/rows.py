"""Rows of JSONL, Parquet and Arrow files, each with its place, so that a mistake in one can be shown to the user."""

from __future__ import annotations

import difflib
import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rollout.component.mistakes import NoRows, NotFound, PackageMissing, Unreadable
from rollout.tasks.libraries.hub import PREFIX, hub_files

ENDINGS = (".jsonl", ".parquet", ".arrow")
STATE = "state.json"
"""In a folder that ``Dataset.save_to_disk`` of the library ``datasets`` has written: names the Arrow files."""
ARROW_MAGIC = b"ARROW1"
ARROW_END = b"\xff" * 4 + bytes(4)
"""Last bytes of a stream: a message of length 0."""
BATCH_ROWS = 1024
"""Rows of a Parquet or Arrow file that are turned into Python objects at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file.

    Attributes:
        place: ``path:line`` (JSONL) or ``path, row N`` (Parquet, Arrow), for messages.
        number: line or row, from 1.
        value: what stands there; the bare text (or None) if it cannot be read.
        problem: why it cannot be read, or None.
    """

    place: str
    number: int
    value: Any
    problem: str | None = None


def find_files(pattern: str) -> list[Path]:
    """The files that a path or glob (``*``, ``?``, ``[...]``, ``**``) names, sorted.

    The folder of a data set that ``datasets`` has saved stands for its files, and ``hub:...`` for those of one that it
    loads by name (:func:`rollout.tasks.libraries.hub.hub_files`).

    Raises:
        UserError: no such file (similar names are given), another folder, or an unsupported ending.
    """
    path = Path(pattern)
    if pattern.startswith(PREFIX):
        return hub_files(pattern)
    if (path / STATE).is_file():
        found = _saved_files(path)
    elif path.exists() or not glob.has_magic(pattern):
        if not path.is_file():
            raise NotFound(_missing(path))
        found = [path]
    else:
        found = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())
        if not found:
            raise NotFound(f"no file matches {pattern!r} in the folder {str(Path.cwd())!r}")
    for file in found:
        if file.suffix.lower() not in ENDINGS:
            raise Unreadable(f"{file}: unsupported ending {file.suffix!r}; valid: {', '.join(ENDINGS)}")
    return found


def hint(name: str, found: Iterable[str], label: str) -> str:
    """The nearest of the names that were found, and the first few of them: ``did you mean 'a'? LABEL: a, b``."""
    names = sorted(found)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    nearest = f"did you mean {close[0]!r}? " if close else ""
    return f"{nearest}{label}: {', '.join(names[:8]) or 'none'}{more}"


def _saved_files(folder: Path) -> list[Path]:
    """The files of a saved data set in their order."""
    try:
        found = [folder / entry["filename"] for entry in json.loads((folder / STATE).read_bytes())["_data_files"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"{folder / STATE}: not written by Dataset.save_to_disk: {error!r}") from error
    if not found:
        raise NoRows(f"{folder}: the saved data set has no rows")
    lacking = [file.name for file in found if not file.is_file()]
    if lacking:
        raise NotFound(f"{folder}: {len(lacking)} of its {len(found)} files are missing, the first is {lacking[0]!r}")
    return found


def _missing(path: Path) -> str:
    splits = sorted(entry.parent.name for entry in path.glob(f"*/{STATE}"))
    if splits:
        return f"{path}: has several saved data sets; give one of them: {', '.join(str(path / n) for n in splits)}"
    if path.is_dir():
        return f"{path}: is a folder; give its files, for example {str(path / '*.jsonl')!r}"
    if not path.parent.is_dir():
        return f"{path}: no such file (nor is there a folder {str(path.parent)!r} in {str(Path.cwd())!r})"
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in ENDINGS]
    return f"{path}: no such file; {hint(path.name, names, 'data files there')}"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in their order. Blank lines of JSONL are no rows.

    A row that cannot be read has a ``problem``; it does not raise.

    Raises:
        UserError: the file as a whole cannot be read.
    """
    rows = _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_columns(path)
    try:
        yield from rows
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}:{number}"
            try:
                # Some editors begin a file with a byte order mark, which is no part of its first row.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1} of the line"
                yield Row(
                    place=place,
                    number=number,
                    value=line.decode("utf-8", "backslashreplace").rstrip("\r\n"),
                    problem=problem,
                )
                continue
            if not text.strip():
                continue
            try:
                yield Row(place=place, number=number, value=json.loads(text, object_pairs_hook=_without_repeats))
            except (ValueError, RecursionError) as error:
                what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                problem = f"not valid JSON: {what}; every line must be one JSON object"
                yield Row(place=place, number=number, value=text.rstrip("\r\n"), problem=problem)


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ``json`` itself would let the last of several equal keys win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _read_columns(path: Path) -> Iterator[Row]:
    """Rows of a Parquet or Arrow file."""
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
    try:
        pyarrow = import_module("pyarrow")  # untyped, and heavy
    except ImportError as error:
        raise PackageMissing(
            f"{path}: reading {kind} needs the package pyarrow, which cannot be imported: {error}"
        ) from error
    number = 0
    try:
        with ExitStack() as stack:
            names, batches = (_parquet_batches if kind == "Parquet" else _arrow_batches)(path, stack)
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise Unreadable(f"{path}: column {repeated[0]!r} is there twice")
            for batch in batches:
                for first in range(0, batch.num_rows, BATCH_ROWS):
                    yield from _python_rows(batch.slice(first, BATCH_ROWS), path, number + first + 1)
                number += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        where = f" after row {number}" if number else ""
        raise Unreadable(f"{path}: not a readable {kind} file{where}: {reason}") from error


def _parquet_batches(path: Path, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    """Names of the columns, and the rows."""
    file = stack.enter_context(import_module("pyarrow.parquet").ParquetFile(path))
    return file.schema_arrow.names, file.iter_batches(batch_size=BATCH_ROWS)


def _arrow_batches(path: Path, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    """Names of the columns, and the rows, of Arrow's stream format (which ``datasets`` writes) or file format."""
    ipc = import_module("pyarrow.ipc")
    file = stack.enter_context(import_module("pyarrow").memory_map(str(path)))
    begin, end = file.read(len(ARROW_MAGIC)), file.read_at(len(ARROW_END), max(file.size() - len(ARROW_END), 0))
    file.seek(0)
    # The ending does not tell the two formats apart: `datasets` gives streams the same one.
    if begin == ARROW_MAGIC:
        reader = stack.enter_context(ipc.open_file(file))
        return reader.schema.names, (reader.get_batch(index) for index in range(reader.num_record_batches))
    reader = stack.enter_context(ipc.open_stream(file))
    if end != ARROW_END:  # a stream that is cut between two batches looks like one that ends there
        raise OSError("the end is missing; the file is cut")
    return reader.schema.names, iter(reader)


def _python_rows(batch: Any, path: Path, first: int) -> Iterator[Row]:
    """Rows of a batch; if they cannot be converted all at once, one by one, to find those that cannot."""
    narrow = _narrow_columns(batch.schema)
    try:
        for number, value in enumerate(batch.to_pylist(), start=first):
            yield Row(place=f"{path}, row {number}", number=number, value=_as_written(value, narrow))
    except (ValueError, OverflowError):  # bad UTF-8, a date beyond Python's: raised before the first row is out
        for number, index in enumerate(range(batch.num_rows), start=first):
            place, row = f"{path}, row {number}", batch.slice(index, 1)
            problem = next(filter(None, (_unreadable(row.column(name), name) for name in row.schema.names)), None)
            value = None if problem else _as_written(row.to_pylist()[0], narrow)
            yield Row(place=place, number=number, value=value, problem=problem)


def _unreadable(column: Any, name: str) -> str | None:
    """Why Python cannot hold the values of a column, or None."""
    try:
        column.to_pylist()
    except UnicodeDecodeError as error:
        return f"text that is not UTF-8: column {name!r}: {error.reason}"
    except (ValueError, OverflowError) as error:
        return f"a value that Python cannot hold: column {name!r}: {error}"
    return None


def _narrow_columns(schema: Any) -> dict[str, type[np.floating[Any]]]:
    """Columns of fractions with fewer than 64 bits, and how they are stored."""
    kinds: dict[str, type[np.floating[Any]]] = {"float": np.float32, "halffloat": np.float16}
    return {field.name: kinds[str(field.type)] for field in schema if str(field.type) in kinds}


def _as_written(row: dict[str, Any], narrow: Mapping[str, type[np.floating[Any]]]) -> dict[str, Any]:
    """The row, with the shortest decimal fraction that stands for a narrow number: 0.1, not 0.10000000149011612."""
    for name, kind in narrow.items():
        if row[name] is not None:
            row[name] = float(str(kind(row[name])))
    return row
