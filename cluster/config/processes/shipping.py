"""What is sent to a cluster that a run joins: the user's own folder, and this source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config.processes.search_path import PACKAGES, ROOT

NOT_SHIPPED = (
    "/.git",
    "/.venv",
    "/runs",
    "/models",
    "**/__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)
"""Large, of no use elsewhere, or both; as in .gitignore."""


def shipped(folder: Path) -> dict[str, Any]:
    """A runtime environment of Ray in which processes begin in a copy of ``folder`` and find this source."""
    environment: dict[str, Any] = {"working_dir": str(folder), "excludes": list(NOT_SHIPPED)}
    if str(folder.resolve()) != ROOT:  # else it is there twice
        environment["py_modules"] = [str(Path(ROOT, package)) for package in PACKAGES]
    return environment
