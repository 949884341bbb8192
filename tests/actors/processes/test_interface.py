"""Which interface gloo and NCCL are told to use."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from actors.processes.interface import interface_of, use_interface_of


@pytest.fixture(autouse=True)
def three_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {
        "lo": ["127.0.0.1"],
        "docker0": ["172.17.0.1"],
        "ib0": ["10.0.0.7", "fe80::7%ib0"],
    }
    entries = {name: [SimpleNamespace(address=address) for address in addresses] for name, addresses in held.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: entries)


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.7", "ib0"), ("fe80::7", "ib0"), ("127.0.0.1", "lo"), ("10.0.0.70", None)]
)
def test_the_interface_that_holds_the_nodes_address(address: str, name: str | None) -> None:
    assert interface_of(address) == name


def test_what_is_set_stays() -> None:
    environment: dict[str, str] = {}
    use_interface_of("10.0.0.70", environment)
    assert environment == {}
    use_interface_of("10.0.0.7", environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "=ib0"}
    use_interface_of("172.17.0.1", environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "=ib0"}
