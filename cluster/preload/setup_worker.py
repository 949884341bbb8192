"""Runs in the place of Ray's ``setup_worker.py``: makes a process the worker that its runtime environment describes.

Ray's own does the same, and imports Ray for it, which takes a third of a second of each worker's start. Called as
``python setup_worker.py default_worker.py [ARGUMENT ...] --language=PYTHON --serialized-runtime-env-context=JSON``.
Standard library only. Whatever it does not know it leaves to Ray's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
KNOWN = frozenset({"env_vars", "py_executable"})
"""Parts of a runtime environment's context that are heeded here; of others only empty ones."""
UNKNOWN = re.compile(r"\$\{[A-Z0-9_]+\}")


def worker_of(arguments: list[str]) -> tuple[list[str], dict[str, str]] | None:
    """The worker's command and environment variables; None if only Ray's own ``setup_worker.py`` can tell."""
    context, language, command = "", "", []
    for argument in arguments:
        if argument.startswith(CONTEXT):
            context = argument.removeprefix(CONTEXT)
        elif argument.startswith(LANGUAGE):
            language = argument.removeprefix(LANGUAGE)
        else:
            command.append(argument)
    found: dict[str, Any] = json.loads(context or "{}")
    if language != "PYTHON" or not command or any(value for name, value in found.items() if name not in KNOWN):
        return None
    return [*shlex.split(found.get("py_executable") or sys.executable), *command], found.get("env_vars") or {}


def expanded(variables: Mapping[str, str], environment: dict[str, str]) -> dict[str, str]:
    """``environment`` with the variables of a runtime environment, in which ``${NAME}`` stands for an earlier value."""
    for name, value in variables.items():
        value = re.sub(r"\$(\w+|\{[^}]*\})", lambda m: environment.get(m[1].strip("{}"), m[0]), value)
        environment[name] = UNKNOWN.sub("", value)
    return environment


def main(arguments: list[str]) -> NoReturn:
    """Be the worker."""
    worker = worker_of(arguments)
    if worker is None:
        script = next(argument for argument in arguments if argument.endswith("default_worker.py"))
        rays_own = Path(script).with_name("setup_worker.py")
        os.execv(sys.executable, [sys.executable, str(rays_own), *arguments])
    command, variables = worker
    os.environ.update(expanded(variables, dict(os.environ)))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
