"""A private Ray without the processes that nobody looks at.

``ray.init`` starts an autoscaler's monitor, a process that follows log files, and a server for the dashboard's
addresses even where all of these are turned off, waits for the last one, and has each worker's process import Ray once
only to read its environment variables: 2.4 of 3.9 s, and 3.7 processor-seconds with five workers (Ray 2.60, 2 cores).
It passes none of Ray's own switches for them on, so they are set beneath it. A Ray that has no such switches is started
as it would be.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.preload import setup_worker

SWITCHES: dict[str, Any] = {
    "no_monitor": True,
    "include_log_monitor": False,
    "setup_worker_path": str(Path(setup_worker.__file__).resolve()),
}


@contextmanager
def lean_ray() -> Iterator[None]:
    """Within the block ``ray.init`` starts only what actors need. Not for a joined cluster, nor for a dashboard."""
    from ray._private import node, parameter

    parameters, start_api_server = parameter.RayParams, getattr(node.Node, "start_api_server", None)
    known = inspect.signature(parameters).parameters
    if start_api_server is None or not all(name in known for name in SWITCHES):
        yield
        return
    parameter.RayParams = functools.partial(parameters, **SWITCHES)
    node.Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        parameter.RayParams = parameters
        node.Node.start_api_server = start_api_server
