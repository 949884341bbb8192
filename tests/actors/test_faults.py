"""The drawing of the tree of faults is the tree."""

from __future__ import annotations

import pickle
import re

import pytest

from actors import faults
from actors.faults import Fault, WorkerHung

CLASSES = {name: value for name, value in vars(faults).items() if isinstance(value, type) and issubclass(value, Fault)}


def drawn() -> dict[str, set[str]]:
    """Parents of each class by the drawing in the module's docstring."""
    parents: dict[str, set[str]] = {}
    path: list[str] = []
    for line in (faults.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+)(  |$)", line)
        if match is None or match[2] not in CLASSES:
            continue
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        parents.setdefault(match[2], set()).update(path[depth - 1 : depth] if depth else ())
    return parents


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == {
        name: {base.__name__ for base in kind.__bases__ if issubclass(base, Fault)} for name, kind in CLASSES.items()
    }


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_faults_cross_processes(name: str) -> None:
    arguments = ("w", "m", "why") if issubclass(CLASSES[name], faults.WorkerError) else ("why",)
    sent = CLASSES[name](*arguments)
    arrived = pickle.loads(pickle.dumps(sent))
    assert type(arrived) is CLASSES[name] and str(arrived) == str(sent)


def test_a_worker_error_names_who_what_and_why() -> None:
    error = WorkerHung("rollout-3", "sample", "no answer within 5 s")
    assert str(error) == "rollout-3 failed in sample: no answer within 5 s"
    assert (error.worker, error.method, error.reason) == ("rollout-3", "sample", "no answer within 5 s")
