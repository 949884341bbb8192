"""Fixtures of the learner's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from learner.update.learner import Learner
from tests.learner.plain_learner import plain_learner


@pytest.fixture
def make_learner(tiny_model: Path) -> Callable[..., Learner]:
    """``make_learner(algorithm, options, config, **settings)``: one rank on plain torch with the tiny model."""
    return partial(plain_learner, tiny_model)
