"""What travels between a caller and an actor whose calls are batched."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

from ray import cloudpickle


class Call(NamedTuple):
    """One call.

    Attributes:
        number: names it among all calls of its caller.
        method, arguments: what is called. An argument may be a :class:`actors.calls.chunks.Place`.
        has_bulk: the method answers with two things, of which the second stays in the object store.
    """

    number: int
    method: str
    arguments: tuple[Any, ...]
    has_bulk: bool


class Answer(NamedTuple):
    """What came of a call.

    Attributes:
        number: of the call.
        value: what it answered, without the bulk.
        error: what it raised instead; None if nothing.
        bulk: which item of the chunk that was stored with this answer is its bulk; None without.
    """

    number: int
    value: Any = None
    error: RaisedError | None = None
    bulk: int | None = None


@dataclass(frozen=True, slots=True)
class RaisedError:
    """An exception on its way to another process, where its class may not exist or may refuse to be made.

    Attributes:
        type_name: name of its class.
        text: what it says.
        pickled: the exception itself, if it can be written.
    """

    type_name: str
    text: str
    pickled: bytes | None

    @classmethod
    def of(cls, error: BaseException) -> RaisedError:
        """Take an exception down."""
        try:
            pickled = cloudpickle.dumps(error)
        except Exception:  # whatever a user's exception holds
            pickled = None
        return cls(type(error).__name__, str(error), pickled)

    def restored(self) -> BaseException:
        """The exception, or what stands for it."""
        if self.pickled is not None:
            try:
                found = pickle.loads(self.pickled)  # from an actor of this run
            except Exception:  # it cannot be made here
                found = None
            if isinstance(found, BaseException):
                return found
        return UnknownError(self.type_name, self.text)


class UnknownError(Exception):
    """Stands for an exception that cannot be made in this process.

    Attributes:
        type_name: name of that exception's class.
    """

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(text)
        self.type_name = type_name


class CallFailedError(Exception):
    """A batched call raised.

    Attributes:
        cause: what it raised.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause
