"""Arguments that name files and folders, read as paths in a configuration are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rollout.component import expand_path
from rollout.component.mistakes import VariableNotSet


class ExpandedPath(click.Path):
    """A path in which ``~`` and ``$NAME`` are replaced: the shell leaves them in ``--output=~/x`` and in quotes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            UserError: it needs a variable that is not set, or the home folder of an unknown user.
        """
        try:
            return super().convert(expand_path(str(value)), param, ctx)
        except ValueError as error:
            name = "path" if param is None else param.opts[0] if param.opts[0].startswith("-") else param.name
            raise VariableNotSet(f"{name}: {error}") from error


PATH = ExpandedPath(path_type=Path)
PATH_TEXT = ExpandedPath(path_type=str)
"""Where another word may stand in its place, such as ``auto``."""
