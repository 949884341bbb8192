"""The doctor asks the hub and believes only an answer of a hub."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
import pytest

from cluster.check.doctor import Level, hub_finding

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that was started with a network."""
    for name in ("HF_HUB_OFFLINE", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()  # it has read the proxies
    yield
    huggingface_hub.close_session()


@contextmanager
def served(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that gives everybody this answer: its address, and what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "level", "told"),
    [
        (200, b'[{"id": "a/b"}]', Level.OK, "online: http://127.0.0.1:"),
        (200, b"<html>please log in</html>", Level.WARNING, "answers, but not as a model hub does"),
        (200, b'{"error": "no"}', Level.WARNING, "answers, but not as a model hub does"),
        (403, b"no", Level.WARNING, "answers with HTTP status 403"),
        (502, b"no", Level.WARNING, "answers with HTTP status 502"),
    ],
)
def test_what_answers(status: int, body: bytes, level: Level, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(status, body) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = hub_finding()
    assert asked == ["/api/models?limit=1"]
    assert (found.level, bool(found.fix)) == (level, level is Level.WARNING)
    assert told in found.value and address in found.value


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
        found = hub_finding()
    assert found.level is Level.WARNING and "cannot be reached: ConnectError" in found.value


def test_one_that_never_answers_is_waited_for_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = hub_finding(timeout_s=0.2)
    assert found.level is Level.WARNING and "cannot be reached: ReadTimeout" in found.value


def test_a_proxy_that_refuses_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(403, b"not allowed") as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        found = hub_finding()
    assert found.level is Level.WARNING and "http://hub.invalid answers with HTTP status 403" in found.value


def test_who_wants_to_be_offline_is_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(200, b"[]") as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        found = hub_finding()
    assert (found.level, asked) == (Level.OK, [])
    assert found.value.startswith("offline (HF_HUB_OFFLINE is set)")
