"""How a path that a user writes is read: one rule for every option and argument that takes one."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def expand_path(text: str) -> str:
    """``text`` with ``~`` or ``~user`` at its beginning and ``$NAME`` or ``${NAME}`` anywhere replaced.

    A hub id or an import path has neither and stays as it is.

    Raises:
        ValueError: the environment has no such variable, or the machine no such user. A folder of that very name would
            be made otherwise.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in os.environ:
            raise ValueError(f"the environment variable {name!r} is not set, which the path needs")
        return os.environ[name]

    # Variables first, so that one may begin with the home folder's sign.
    expanded = os.path.expanduser(_VARIABLE.sub(value, text))
    if expanded.startswith("~"):
        raise ValueError(f"no home folder is known for {expanded.partition('/')[0]!r}; write ./~ for a name like that")
    return expanded


PathText = Annotated[str, AfterValidator(expand_path)]
"""An option that names files or folders on this machine, or a pattern for them; a hub id where that may stand too."""
