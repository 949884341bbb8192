"""Calls that nobody waits for any more."""

from __future__ import annotations

import asyncio
from typing import Any


def forget(task: asyncio.Future[Any]) -> None:
    """Look at the exception of a finished call, so that asyncio does not report one that nobody retrieved.

    To be added as a callback to what was given up and may end with an error.
    """
    if not task.cancelled():
        task.exception()
