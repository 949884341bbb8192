"""What a task makes of environments in a rollout worker."""

from __future__ import annotations

from rollout.component import ComponentSpec, build, resolve_class
from rollout.environment import MakeEnvironment
from rollout.tasks import TASKS
from rollout.tasks.base import Task


def environment_maker(spec: ComponentSpec) -> MakeEnvironment | None:
    """What makes the environments of the task that ``spec`` names; None if it has none, and then it is not built."""
    found = resolve_class(spec, TASKS, Task, "data.task")
    # Not built where it is not needed: a task may read large files, and this runs in each rollout worker.
    if found.make_environment is Task.make_environment:
        return None
    task: Task = build(spec, TASKS, Task, "data.task")
    return task.make_environment
