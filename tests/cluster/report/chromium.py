"""A headless Chromium, driven over its DevTools protocol: pages are opened, clicked through, and looked at."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_TIMEOUT_S, ANSWER_TIMEOUT_S = 120.0, 120.0


def find_chromium() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab.

    Attributes:
        problems: errors and warnings of the console, and exceptions, in their order.
        requests: addresses that were asked for, without the page's own and those of data in it.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket, self._session, self._numbers = socket, session, itertools.count(1)
        self.problems: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer; events on the way are noted."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "sessionId": self._session, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                message = await self._read()
                if message.get("id") == number:
                    if "error" in message:
                        raise RuntimeError(f"{method}: {message['error']}")
                    return dict(message.get("result", {}))

    async def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._socket.receive()).data)
        kind, facts = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(facts["exceptionDetails"])[:500])
        elif kind == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning"):
            self.problems.append(json.dumps(facts["args"])[:500])
        elif kind == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(facts["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        return message

    async def open(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """Load a file and wait until its script is done."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await self.send("Page.navigate", url=path.resolve().as_uri())
        await self.until("document.readyState === 'complete' && document.getElementById('foot')?.childElementCount > 0")
        own = path.resolve().as_uri()
        self.requests = [url for url in self.requests if url != own and not url.startswith("data:")]

    async def run(self, script: str) -> Any:
        """The value of an expression in the page.

        Raises:
            RuntimeError: it throws.
        """
        found = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {json.dumps(found['exceptionDetails'])[:500]}")
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true.

        Raises:
            TimeoutError: it does not become so.
        """
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not await self.run(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so: {condition}")

    async def press(self, key: str) -> None:
        """A key, into what has the focus."""
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what is seen as PNG; ``whole``: all of the page."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def chromium_page(folder: Path) -> AsyncIterator[Page]:
    """A tab of a Chromium of its own, which ends with the block. Without a network, whatever a page asks for.

    Args:
        folder: for its profile.
    """
    program = find_chromium()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--no-first-run", "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port, path = await _address(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as client:
            async with client.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket:
                root = Page(socket, "")
                target = (await _root(root, "Target.createTarget", url="about:blank"))["targetId"]
                found = await _root(root, "Target.attachToTarget", targetId=target, flatten=True)
                yield Page(socket, found["sessionId"])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _root(page: Page, method: str, **parameters: Any) -> dict[str, Any]:
    """A method of the browser itself, which belongs to no tab."""
    number = next(page._numbers) + 1_000_000
    await page._socket.send_json({"id": number, "method": method, "params": parameters})
    while True:
        message = await page._read()
        if message.get("id") == number:
            return dict(message["result"])


async def _address(file: Path, process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Where it listens, once it says so."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        lines = file.read_text().split() if file.is_file() else []
        if len(lines) == 2:
            return lines[0], lines[1]
        if process.returncode is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Chromium did not start (exit status {process.returncode})")
        await asyncio.sleep(0.05)
