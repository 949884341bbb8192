"""Puts the page together: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from cluster.report.page.payload import payload
from cluster.report.run_record import RunRecord
from rollout.component.mistakes import NotWritable

STYLES = ("uPlot.min.css", "report.css")
SCRIPTS = (
    "uPlot.iife.min.js",
    "elements.js",
    "verdict.js",
    "charts.js",
    "timeline.js",
    "fan.js",
    "browser.js",
    "main.js",
)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def build_page(runs: Sequence[RunRecord]) -> str:
    """The whole page."""
    names = ", ".join(run.name for run in runs[:4]) + (" and others" if len(runs) > 4 else "")
    parts = {
        "title": html.escape(f"dvpo report: {names}"),
        "style": "\n".join(map(_asset, STYLES)),
        "licence": _asset("uPlot-LICENSE.txt"),
        "data": embedded_json(payload(runs)),
        "script": "\n".join(map(_asset, SCRIPTS)),
    }
    # In one pass, so that nothing in a run's texts is taken for a place to fill.
    return _PLACE.sub(lambda place: parts[place[1]], _asset("page.html"))


def embedded_json(value: Any) -> str:
    """JSON that can stand inside a script element whatever texts are in it: no ``<`` is left that could end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair has no form in a file


def write_page(runs: Sequence[RunRecord], path: Path) -> int:
    """Write the page about some runs; returns its bytes.

    Raises:
        UserError: the file cannot be written.
    """
    content = build_page(runs).encode("utf-8")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise NotWritable(f"--output: cannot write {path}: {error.strerror}") from error
    return len(content)


def _asset(name: str) -> str:
    return (files("cluster.report.page") / "assets" / name).read_text(encoding="utf-8")
