"""Which Ray a run goes to: one place that decides, for all that ask."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cluster.config.run_config import RunConfig

IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the processes of a job, whose source has been shipped."""


def joined_address(config: RunConfig, environment: Mapping[str, str] = os.environ) -> str | None:
    """The address of the cluster that a run joins; None for a private Ray.

    It comes from ``cluster.address``, or from ``RAY_ADDRESS``, which Ray sets inside a job.
    """
    return config.cluster.address or environment.get("RAY_ADDRESS") or None
