"""Before models are loaded: whether every host of a joined cluster has what the run needs, as a table by host."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.pools.loss import end
from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig
from cluster.run.places.host_probe import HostFacts, HostProbe, Wanted, folder_digest, mark_of
from rollout.component import UserError
from rollout.component.mistakes import HostUnfit

ANSWER_S = 60.0
"""Longest wait for the hosts, each of which starts a process and may get the source first."""
MOST_CLOCK_S = 5.0
LEAST_DISK_MIB, LEAST_SHARED_MEMORY_MIB = 64, 16


def preflight(config: RunConfig, run_dir: Path, placements: Sequence[Any], tell: Callable[[str], None]) -> None:
    """Look at every host that the run has a place on.

    Args:
        run_dir: absolute path of the run's folder.
        placements: the run's placement groups.
        tell: takes the lines of the table.

    Raises:
        UserError: a host is not fit for the run; every problem is a line with the host.
    """
    wanted = wanted_of(config, run_dir)
    mark = mark_of(run_dir, wanted.token)
    mark.write_text(wanted.token, encoding="utf-8")
    probes = {node: _probe(node, address) for node, address in _nodes(placements).items()}
    try:
        began = time.time()
        facts, silent = _looked(probes, wanted)
        took = time.time() - began
        problems = [*judged(list(facts.values()), began, took, wanted), *silent, *_unconnected(probes, facts)]
    finally:
        for probe in probes.values():
            end(probe)
        mark.unlink(missing_ok=True)
    for line in table(list(facts.values()), problems):
        tell(line)
    if problems:
        raise UserError("\n".join(str(HostUnfit(problem)) for problem in problems))


def wanted_of(config: RunConfig, run_dir: Path) -> Wanted:
    """What each host of a run needs."""
    paths = dict.fromkeys(filter(None, [config.model.path, config.model.critic_path]))
    models = tuple(path for name in paths if Path(path := absolute_model_path(name)).is_absolute())
    components = tuple(dict.fromkeys(_components(config.model_dump(mode="json"))))
    return Wanted(run_dir=str(run_dir), token=secrets.token_hex(4), models=models, components=components)


def judged(facts: Sequence[HostFacts], began: float, took_s: float, wanted: Wanted) -> list[str]:
    """What is wrong, one line each.

    Args:
        began, took_s: when the driver asked, by its own clock, and how long the answers took.
    """
    problems = [f"{_name(host)}: {problem}" for host in facts for problem in host.problems]
    mine = tuple(folder_digest(Path(path)) for path in wanted.models)
    for host in facts:
        for path, digest, expected in zip(wanted.models, host.digests, mine, strict=True):
            if digest != expected:
                found = "is not there" if not digest else "has other files or other contents than on the driver's host"
                problems.append(
                    f"{_name(host)}: model.path: {path} {found}; copy it, or use storage that all hosts share"
                )
        off = max(began - host.clock, host.clock - began - took_s, 0.0)
        if off > MOST_CLOCK_S:
            problems.append(f"{_name(host)}: its clock is {off:.0f} s off the driver's; leases and logs need one time")
        if host.disk_mib < LEAST_DISK_MIB:
            problems.append(f"{_name(host)}: {host.disk_mib} MiB are free in {wanted.run_dir}")
        if host.shared_memory_mib < LEAST_SHARED_MEMORY_MIB:
            problems.append(
                f"{_name(host)}: {host.shared_memory_mib} MiB are free in /dev/shm, through which weights go; in a "
                "container, --shm-size"
            )
    return problems


def table(facts: Sequence[HostFacts], problems: Sequence[str]) -> list[str]:
    """A line for each host."""
    lines = []
    for host in facts:
        bad = sum(problem.startswith(f"{_name(host)}: ") for problem in problems)
        state = "ok" if not bad else f"{bad} problem{'s' if bad > 1 else ''}"
        free = f"/dev/shm {host.shared_memory_mib:,} MiB free, run folder {host.disk_mib:,} MiB free"
        lines.append(f"host {_name(host)}: {state}; {free}")
    return lines


def _name(host: HostFacts) -> str:
    return f"{host.host} ({host.address})"


def _components(value: Any) -> Iterator[str]:
    """Every ``type: module:Class`` of a configuration."""
    if isinstance(value, Mapping):
        kind = value.get("type")
        if isinstance(kind, str) and ":" in kind:
            yield kind
        for entry in value.values():
            yield from _components(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _components(entry)


def _nodes(placements: Sequence[Any]) -> dict[str, str]:
    """Address of each node that the run has a place on, and of the driver's own, by id."""
    used = {ray.get_runtime_context().get_node_id()}
    for group in filter(None, placements):
        used |= set(placement_group_table(group)["bundles_to_node_id"].values())
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in used}


def _probe(node: str, address: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(HostProbe).options(num_cpus=0, scheduling_strategy=there).remote(address)


def _looked(probes: Mapping[str, Any], wanted: Wanted) -> tuple[dict[str, HostFacts], list[str]]:
    """What was found by node, and a line for each host that does not answer."""
    asked = {node: probe.look.remote(wanted) for node, probe in probes.items()}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    facts, silent = {}, []
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    for node, reference in asked.items():
        try:
            if reference not in ready:
                raise TimeoutError(f"no process of the run answered there within {ANSWER_S:g} s")
            facts[node] = ray.get(reference)
        except Exception as error:  # of Ray: the host is gone, or the process could not be started
            reason = " ".join(str(error).split())[:300]
            silent.append(f"{addresses.get(node, node)}: {reason}")
    return facts, silent


def _unconnected(probes: Mapping[str, Any], facts: Mapping[str, HostFacts]) -> list[str]:
    """A line for each host that cannot reach another one, over the interface of Ray's address."""
    if len(facts) < 2:
        return []
    problems = []
    with suppress(Exception):  # a host that is lost meanwhile is found out by whoever needs it
        ports = {node: ray.get(probes[node].listen.remote(), timeout=ANSWER_S) for node in facts}
        for node, host in facts.items():
            if not ports[node]:
                problems.append(f"{_name(host)}: it has no interface with Ray's address {host.address}")
            others = [(facts[other].address, port) for other, port in ports.items() if other != node and port]
            failed = ray.get(probes[node].connect.remote(others), timeout=ANSWER_S)
            problems += [f"{_name(host)}: {problem}" for problem in failed]
    return problems
