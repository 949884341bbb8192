"""The network interface over which the nodes of a Ray cluster reach each other, for gloo and NCCL."""

from __future__ import annotations

from collections.abc import MutableMapping

import psutil


def interface_of(address: str) -> str | None:
    """Name of this machine's interface that holds an IP address; None if none does, as behind address translation."""
    for name, held in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == address for entry in held):
            return str(name)
    return None


def use_interface_of(address: str, environment: MutableMapping[str, str]) -> None:
    """Have gloo and NCCL use the interface that holds ``address``, the one by which Ray knows this node.

    Left to themselves they take the first one that they find, or the one that the host's name resolves to: on a machine
    with several (a container's bridge, a management network) that may be one that the other nodes cannot reach. What is
    set already stays.

    Args:
        environment: of this process, before it or a child of it opens a group.
    """
    name = interface_of(address)
    if name is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", name)
        environment.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # else names that begin so would count, too
