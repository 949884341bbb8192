"""A small ledger, open for writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.ledger.ledger import Ledger
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Its file."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """The ledger; closed at the end."""
    opened = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    yield opened
    opened.close()
