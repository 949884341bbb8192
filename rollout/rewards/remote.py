"""``remote``: scores from a server over HTTP. The protocol is described in ``docs/rewards.md``."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, TypeVar

import aiohttp
from pydantic import Field, field_validator

from rollout.component import UserError
from rollout.reward_errors import TOO_MANY_REQUESTS
from rollout.rewards.base import Abstain, InvalidScore, Reward, RewardUnavailable
from rollout.rewards.circuit_breaker import CircuitBreaker
from rollout.trajectory import Prompt, Trajectory

T = TypeVar("T")


class HttpRefused(RuntimeError):
    """The server answered with a 4xx: the same request would be refused again."""


class Remote(Reward):
    """Sends prompt and response to a server, which answers with a score or abstains.

    Raises:
        UserError: the environment variable that ``token_env`` names is not set.
    """

    class Config(Reward.Config):
        """Options of this reward."""

        url: str = Field(description="Where samples are posted to, such as http://scores.example:8000/score.")
        token_env: str | None = Field(
            None, description="Environment variable that holds the bearer token, on every machine that runs rewards."
        )
        timeout_s: float = Field(10.0, gt=0.0, description="Longest time for one HTTP request, in seconds.")
        max_connections: int = Field(64, ge=1, le=4096, description="Connections of one reward worker.")
        breaker_failures: int = Field(
            20, ge=1, description="Failures in a row after which requests are held back for breaker_pause_s."
        )
        breaker_pause_s: float = Field(5.0, gt=0.0, description="Time until a server that failed is tried again.")
        cache: bool = Field(False, description="Remember scores: the server gives the same text the same score.")

        @field_validator("url")
        @classmethod
        def _http(cls, url: str) -> str:
            if not url.startswith(("http://", "https://")):
                raise ValueError("must begin with http:// or https://")
            return url

    config: Remote.Config

    def __init__(self, config: Remote.Config) -> None:
        super().__init__(config)
        self.deterministic = config.cache
        self._headers = {"Authorization": f"Bearer {_token(config.token_env)}"} if config.token_env else {}
        self._breaker = CircuitBreaker(config.breaker_failures, config.breaker_pause_s)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        request = {"samples": [_sample(prompt, trajectory)]}
        async with self._breaker.request():
            status, headers, body = await self._post(json.dumps(request).encode())
            if status >= 500 or status == TOO_MANY_REQUESTS:
                raise RewardUnavailable(f"HTTP {status} from {self.config.url}", _retry_after_s(headers))
        if status != 200:
            raise HttpRefused(f"HTTP {status} from {self.config.url}: {body[:200].decode(errors='replace')}")
        return _score(body)

    async def _post(self, data: bytes) -> tuple[int, Any, bytes]:
        """Status, headers and body of one request."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.config.max_connections),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={**self._headers, "Content-Type": "application/json"},
            )
        try:
            async with asyncio.timeout(self.config.timeout_s):
                async with self._session.post(self.config.url, data=data) as response:
                    return response.status, response.headers, await response.read()
        except TimeoutError:
            raise RewardUnavailable(f"no answer from {self.config.url} within {self.config.timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise RewardUnavailable(f"{self.config.url}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _token(variable: str) -> str:
    token = os.environ.get(variable, "")
    if not token:
        raise UserError(f"token_env: the environment variable {variable} is not set; it holds the bearer token")
    return token


def _sample(prompt: Prompt, trajectory: Trajectory) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "sample_index": trajectory.sample_index,
        "messages": prompt.messages,
        "response": trajectory.response_text,
        "finish_reason": trajectory.finish_reason,
        "reference": prompt.reference,
        "task": prompt.task,
        "extra": prompt.extra,
    }


def _retry_after_s(headers: Any) -> float:
    """The pause that a server asks for, in seconds; 0 if it names none, or a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _score(body: bytes) -> float:
    """The score in a response for one sample.

    Raises:
        Abstain: the server abstains.
        InvalidScore: the body is not what the protocol says.
    """
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise InvalidScore(f"the server's answer is not JSON: {body[:100].decode(errors='replace')!r}") from error
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != 1:
        raise InvalidScore(f'the server\'s answer is not {{"scores": [...]}} with one entry: {body[:100]!r}')
    entry = scores[0]
    if isinstance(entry, dict) and isinstance(entry.get("abstain"), str):
        raise Abstain(entry["abstain"])
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        raise InvalidScore(f"the server's score is {entry!r:.100}, which is not a number")
    return float(entry)
