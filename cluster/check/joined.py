"""What is worth knowing of a cluster that a run will join, before it is joined."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from cluster.config.processes.joined_cluster import IN_JOB, joined_address
from cluster.config.run_config import RunConfig

STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
RAYS_OWN_STOP_S = 3.0
LEAST_STOP_S = 30.0
"""Time that a step, a checkpoint of a small model and an orderly end take."""


def joined_cluster_warnings(config: RunConfig, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Warnings about the cluster of ``cluster.address`` or ``RAY_ADDRESS``; none for a private Ray."""
    address = joined_address(config, environment)
    warnings = []
    if address is not None and not _is_local(address) and environment.get("RAY_AUTH_MODE") != "token":
        warnings.append(
            f"cluster.address: {address} is reached over the network and RAY_AUTH_MODE is not 'token': whoever reaches "
            "it can run code in this cluster; docs/security.md"
        )
    if IN_JOB in environment and _stop_wait_s(environment) < LEAST_STOP_S:
        warnings.append(
            f"`ray job stop` kills this job {_stop_wait_s(environment):g} s after it has asked it to end, and a "
            "checkpoint takes longer: steps since the last one would be lost. Submit it with "
            f'--runtime-env-json \'{{"env_vars": {{"{STOP_VARIABLE}": "300"}}}}\''
        )
    return warnings


def _stop_wait_s(environment: Mapping[str, str]) -> float:
    try:
        return float(environment.get(STOP_VARIABLE, RAYS_OWN_STOP_S))
    except ValueError:
        return RAYS_OWN_STOP_S


def _is_local(address: str) -> bool:
    """Whether an address is of this machine only: ``auto`` and ``local`` are what Ray finds or makes here."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    if host in ("auto", "local", "localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
