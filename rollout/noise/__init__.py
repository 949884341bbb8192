"""Noise models."""

from __future__ import annotations

NOISES: dict[str, str] = {}
