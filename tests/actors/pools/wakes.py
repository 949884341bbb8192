"""Counts how often a coroutine is woken: a measure of waiting that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Counted(Generic[T]):
    """Awaits a coroutine and counts the times that it goes on after a wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.num_wakes = 0

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._coroutine.__await__()
        try:
            waited_for = next(steps)
            while True:
                try:
                    value = yield waited_for
                except BaseException as error:
                    waited_for = steps.throw(error)
                else:
                    self.num_wakes += 1
                    waited_for = steps.send(value)
        except StopIteration as end:
            result: T = end.value
            return result
