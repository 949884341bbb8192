"""How many rollout workers a run is to have, as told by hand: a file in its folder, which its controller looks at."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

NAME = "scale.json"


def write_order(run_dir: Path, rollouts: int | None) -> None:
    """Tell the run; None takes back what was told, so that the configuration counts.

    Raises:
        OSError: the file cannot be written.
    """
    path = run_dir / NAME
    if rollouts is None:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"rollouts": rollouts}), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_order(run_dir: Path) -> int | None:
    """What was told last; None if nothing was, or if it cannot be read."""
    try:
        number = json.loads((run_dir / NAME).read_text(encoding="utf-8"))["rollouts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) and number >= 1 else None
