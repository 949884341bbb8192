"""How commands of the command line answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class Mistake(click.ClickException):
    """A user's mistake: each line of the message is shown after ``error:``."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message to standard error."""
        for line in self.message.splitlines():
            click.echo(f"error: {line}", err=True, file=file)


class RunFailed(Mistake):
    """The run could not go on, and nothing that the user gave is wrong."""

    exit_code = 1


def print_lines(lines: Sequence[str]) -> None:
    """Print to standard output."""
    click.echo("\n".join(lines))
