"""Paths as another process sees them."""

from __future__ import annotations

import os


def absolute_model_path(path: str) -> str:
    """An absolute path for a folder on this machine, since actors have their own working folder; a hub id as it is."""
    return os.path.abspath(path) if os.path.exists(path) else path
