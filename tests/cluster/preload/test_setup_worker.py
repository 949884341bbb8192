"""In the place of Ray's own ``setup_worker.py``: the same process of a runtime environment, or Ray's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.context import RuntimeEnvContext
from ray._private.utils import update_envs

from cluster.preload import setup_worker
from cluster.preload.setup_worker import CONTEXT, LANGUAGE, expanded, worker_of


def arguments(context: str, language: str = "PYTHON") -> list[str]:
    return ["/x/default_worker.py", "--one=1", LANGUAGE + language, CONTEXT + context]


def test_command_and_variables_of_rays_own_context() -> None:
    """Every key that Ray writes is known, or would be told by its value."""
    context = RuntimeEnvContext(env_vars={"A": "1"}, py_executable="/python -S '/a b.py'")
    found = worker_of(arguments(context.serialize()))
    assert found == (["/python", "-S", "/a b.py", "/x/default_worker.py", "--one=1"], {"A": "1"})
    assert worker_of(arguments("{}")) == ([sys.executable, "/x/default_worker.py", "--one=1"], {})


@pytest.mark.parametrize("part", ["command_prefix", "override_worker_entrypoint", "java_jars", "of_a_later_ray"])
def test_what_is_not_known_is_left_to_ray(part: str) -> None:
    assert worker_of(arguments(json.dumps({part: ["something"]}))) is None
    assert worker_of(arguments("{}", "JAVA")) is None


VARIABLES: dict[str, Any] = {
    "PLAIN": "1",
    "LONGER": "${PATH}:/more",
    "SHORT": "$PLAIN/x",
    "MISSING": "a${NO_SUCH_VARIABLE}b",
    "KEPT": "$no_such_variable",
}


def test_variables_are_those_that_ray_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = expanded(VARIABLES, dict(os.environ))
    with monkeypatch.context() as patched:
        for name in VARIABLES:
            patched.setenv(name, "before")
            patched.delenv(name)
        update_envs(VARIABLES)
        theirs = dict(os.environ)
    assert {name: ours[name] for name in VARIABLES} == {name: theirs[name] for name in VARIABLES}


def test_a_worker_and_one_that_ray_sets_up(tmp_path: Path) -> None:
    """A process of each kind; Ray's own script lies beside that of its workers."""
    for name in ("default_worker.py", "setup_worker.py"):
        (tmp_path / name).write_text("import os, sys\nprint(sys.argv[0].rpartition('/')[2], os.environ.get('A'))\n")
    worker = str(tmp_path / "default_worker.py")
    told = []
    for context in ({"env_vars": {"A": "1"}}, {"env_vars": {"A": "1"}, "command_prefix": ["nice"]}):
        command = [sys.executable, setup_worker.__file__, worker, LANGUAGE + "PYTHON", CONTEXT + json.dumps(context)]
        told.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert told == ["default_worker.py 1\n", "setup_worker.py None\n"]
