"""How commands of the command line answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from actors.recording.safe_text import safe
from cluster.display.printable import printable
from rollout.component.errors import coded

LONGEST_LINE = 4000
"""Characters of one line of a message: a row of data may be as long as its file."""


class CommandError(click.ClickException):
    """A command ends with a message and no traceback: each line of it is shown after ``error:``."""

    def show(self, file: Any = None) -> None:
        """Print the message to standard error."""
        for line in self.message.splitlines():
            shown = safe(line[:LONGEST_LINE]) + ("…" if len(line) > LONGEST_LINE else "")
            click.echo(f"error: {shown}", err=True, file=file)


class UserMistake(CommandError):
    """Something that the user gave is wrong, and the message says what would be right."""

    exit_code = 2


class RunFailed(CommandError):
    """A command could not go on, or a run's records cannot be read; nothing that was given is known to be wrong."""

    exit_code = 1
    code = "run-failed"

    def __init__(self, message: str) -> None:
        """The first line gets the code, unless it has that of what went wrong."""
        first, newline, further = message.partition("\n")
        super().__init__(coded(first, self.code) + newline + further)


def print_lines(lines: Sequence[str]) -> None:
    """Print to standard output."""
    click.echo(printable("\n".join(lines)))
