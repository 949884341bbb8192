"""What the user did wrong, and what the user's own code raised."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

Result = TypeVar("Result")
MAX_SHOWN = 500
"""Characters of an error's text that are told."""
_CODE = re.compile(r"\[[a-z]+(?:-[a-z]+)+\]\)?$")
_ROOT = Path(__file__).resolve().parents[2]
_NOT_THE_USERS = (
    *(f"{_ROOT / name}/" for name in ("rollout", "learner", "actors", "cluster")),
    *(f"{sysconfig.get_paths()[name]}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen ",
)
"""Where files of ours, of Python and of installed packages lie."""


class UserError(Exception):
    """A mistake in what the user gave us. Shown as one message, without a traceback; the process exits with 2.

    Ours are of the kinds in :mod:`rollout.component.mistakes`, whose code ends the message. As it stands it hands on
    what has its code already, or is raised by code of the user's, which needs none.
    """

    code: ClassVar[str] = ""

    def __str__(self) -> str:
        return coded(super().__str__(), self.code)


class CodeRaised(UserError):
    """Code of yours, or of a library that it calls, raised an error. The message has it, and the line in your files."""

    code = "code-raised"


def coded(message: str, code: str) -> str:
    """A message with the code at its end, unless it has one there: what is handed on keeps the code of its cause."""
    return message if not code or _CODE.search(message) else f"{message} [{code}]"


def mistake_in(raised: str) -> str | None:
    """The message of a :class:`UserError` of which only ``Name: message`` is left; None if it is another error."""
    name, colon, message = raised.partition(": ")
    return message if colon and name in {kind.__name__ for kind in _kinds(UserError)} else None


def _kinds(kind: type[UserError]) -> Iterator[type[UserError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def user_code(where: str, doing: str, call: Callable[[], Result]) -> Result:
    """What ``call`` returns, which runs code of the user's.

    Args:
        where: the place in the configuration that the message begins with.
        doing: what went on, for the end of the message: ``while 'my_rewards:Judge' was made``.

    Raises:
        UserError: as it is, if one was raised; else one that begins with whatever was raised. ``SystemExit`` counts as
            an error: code that is asked for something does not end the program.
    """
    try:
        return call()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise CodeRaised(f"{where}: {_shown(error)} (raised {doing}{_line_of_the_user(error)})") from error


def _shown(error: BaseException) -> str:
    """Type and text of an error on one line: what a traceback ends with."""
    return " ".join("".join(traceback.format_exception_only(error)).split())[:MAX_SHOWN]


def _line_of_the_user(error: BaseException) -> str:
    """File and line of the innermost frame in a file of the user's; empty if there is none."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_NOT_THE_USERS)
    ]
    return f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
