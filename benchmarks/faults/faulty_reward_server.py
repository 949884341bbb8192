"""The example reward server in a process of its own, with a latency and with faults.

Which fault a request meets follows from the seed, the trajectory and how often that was asked for before, so two runs
that ask for the same meet the same. Every request is a line of the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

SHARES = {"timeout": 0.20, "500": 0.10, "malformed": 0.05, "nan": 0.01}
ANSWERS = {"malformed": b'{"scores": [0.', "nan": b'{"scores": [NaN]}', "500": b"injected"}


@dataclass
class FaultyServer:
    """An ASGI application around another one.

    Attributes:
        app: what scores.
        shares: kind of fault -> share of requests.
        latency_s: time that every answer takes, an HTTP 500 too, in seconds.
        log: where each request is written when its answer is ready: id, attempt (from 0), kind, score.
    """

    app: Any
    shares: dict[str, float]
    latency_s: float
    seed: int
    log: IO[str]
    attempts: Counter[str] = field(default_factory=Counter)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != "/score":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        sample = json.loads(body)["samples"][0]
        name = f"{sample['prompt_id']}#{sample['sample_index']}"
        attempt = self.attempts[name]
        self.attempts[name] += 1
        kind = self._kind(name, attempt)
        if kind == "timeout":
            self._note(name, attempt, kind, None)
            while (await receive())["type"] != "http.disconnect":  # the client gives up first
                pass
            return
        await asyncio.sleep(self.latency_s)
        if kind:
            self._note(name, attempt, kind, None)
            await _answer(send, 500 if kind == "500" else 200, ANSWERS[kind])
        else:
            await self._score(scope, body, send, name, attempt)

    def _kind(self, name: str, attempt: int) -> str:
        draw = random.Random(f"{self.seed}/{name}/{attempt}").random()
        for kind, share in self.shares.items():
            if draw < share:
                return kind
            draw -= share
        return ""

    async def _score(self, scope: dict[str, Any], body: bytes, send: Any, name: str, attempt: int) -> None:
        async def again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def noted(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                self._note(name, attempt, "", json.loads(message["body"])["scores"][0])
            await send(message)

        await self.app(scope, again, noted)

    def _note(self, name: str, attempt: int, kind: str, score: Any) -> None:
        self.log.write(json.dumps({"id": name, "attempt": attempt, "kind": kind, "score": score}) + "\n")
        self.log.flush()


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until the process is ended; the port is written to a file once it is open."""
    import uvicorn

    from examples import reward_server
    from rollout.rewards.exact_match import answer_equals

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds requests.jsonl and port")
    parser.add_argument("--latency-s", type=float, required=True)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    def judge(sample: reward_server.Sample) -> float:
        return float(answer_equals(sample.response, sample.reference or ""))

    reward_server.judge = judge
    with (options.folder / "requests.jsonl").open("w") as log:
        shares = SHARES if options.faults else {}
        app = FaultyServer(reward_server.app, shares, options.latency_s, options.seed, log)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
        asyncio.run(_serve(server, options.folder / "port"))


async def _serve(server: Any, port_file: Path) -> None:
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    partial = port_file.with_suffix(".part")
    partial.write_text(str(server.servers[0].sockets[0].getsockname()[1]))
    partial.rename(port_file)
    await serving


if __name__ == "__main__":
    main()
