"""``remote``: scores from a server over HTTP. The protocol is described in ``docs/rewards.md``."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import aiohttp
from pydantic import Field, field_validator, model_validator

from rollout.component.mistakes import VariableNotSet
from rollout.rewards.base import Abstain, InvalidScore, Reward, RewardUnavailable
from rollout.rewards.circuit_breaker import CircuitBreaker
from rollout.rewards.errors import TOO_MANY_REQUESTS
from rollout.trajectory import Prompt, Trajectory

_VARIABLE = re.compile(r"\$\{?(\w+)\}?", re.ASCII)
MAX_HEDGES = 32.0
"""Requests that may be sent again although nothing was answered: a server that hangs gets no more of them."""
HEDGES_PER_ANSWER = 0.5
"""Further ones that each answer allows."""


class HttpRefused(RuntimeError):
    """The server answered with a 4xx: the same request would be refused again."""


class Remote(Reward):
    """Sends prompt and response to a server, which answers with a score or abstains.

    Raises:
        UserError: an environment variable that ``token_env`` or ``url`` names is not set.
    """

    class Config(Reward.Config):
        """Options of this reward."""

        url: str = Field(
            description="Where samples are posted to, such as http://scores.example:8000/score. $NAME stands for an "
            "environment variable of every machine that runs rewards, for a password or a key."
        )
        token_env: str | None = Field(
            None, description="Environment variable that holds the bearer token, on every machine that runs rewards."
        )
        timeout_s: float = Field(10.0, gt=0.0, description="Longest time until the server has answered, in seconds.")
        hedge_after_s: float | None = Field(
            None, gt=0.0, description="Time without an answer after which the request is sent again; null: never."
        )
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

        @model_validator(mode="after")
        def _hedge_in_time(self) -> Remote.Config:
            if self.hedge_after_s is not None and self.hedge_after_s >= self.timeout_s:
                raise ValueError(f"hedge_after_s must be less than timeout_s ({self.timeout_s:g})")
            return self

    config: Remote.Config

    def __init__(self, config: Remote.Config) -> None:
        super().__init__(config)
        self.deterministic = config.cache
        self._url, self._secrets = _resolved(config.url)
        self._headers = {}
        if config.token_env:
            token = _token(config.token_env)
            self._headers, self._secrets = {"Authorization": f"Bearer {token}"}, [*self._secrets, token]
        self._breaker = CircuitBreaker(config.breaker_failures, config.breaker_pause_s)
        self._hedges = float(MAX_HEDGES)
        self._session: aiohttp.ClientSession | None = None

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`; here a value that JSON has no form for."""
        for name, value in prompt.extra.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TypeError(f"prompt.extra[{name!r}] cannot be sent as JSON: {error}") from error
        return None

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        request = {"samples": [_sample(prompt, trajectory)]}
        async with self._breaker.request():
            answer = await self._first_answer(json.dumps(request).encode())
        self._hedges = min(self._hedges + HEDGES_PER_ANSWER, MAX_HEDGES)
        if isinstance(answer, HttpRefused):
            raise answer
        return _score(answer)

    async def _first_answer(self, data: bytes) -> Any:
        """The first answer; other requests are given up.

        Raises:
            RewardUnavailable: all have failed, or none was answered in time.
        """
        pending = {asyncio.ensure_future(self._post(data))}
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(self.config.timeout_s):
                while pending:
                    done, pending = await asyncio.wait(
                        pending, timeout=self.config.hedge_after_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    for request in done:
                        failure = request.exception()
                        if failure is None:
                            return request.result()
                    if not done and self._hedges >= 1.0:
                        self._hedges -= 1.0
                        pending.add(asyncio.ensure_future(self._post(data)))
        except TimeoutError:
            raise RewardUnavailable(f"no answer from {self.config.url} within {self.config.timeout_s:g} s") from None
        finally:
            for request in pending:
                request.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        assert failure is not None
        raise failure

    async def _post(self, data: bytes) -> Any:
        """The JSON that one request is answered with, or the server's refusal.

        Raises:
            RewardUnavailable: the connection failed, the server says that it does not work at the moment, or its answer
                is not whole.
        """
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.config.max_connections),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={**self._headers, "Content-Type": "application/json"},
            )
        url = self.config.url  # as it was written, for messages
        try:
            async with self._session.post(self._url, data=data) as response:
                status, headers = response.status, response.headers
                body = self._told((await response.read()).decode(errors="replace"))
        except aiohttp.ClientError as error:
            raise RewardUnavailable(f"{url}: {type(error).__name__}: {self._told(str(error))}") from None
        if status >= 500 or status == TOO_MANY_REQUESTS:
            raise RewardUnavailable(f"HTTP {status} from {url}", _retry_after_s(headers))
        if status != 200:
            return HttpRefused(f"HTTP {status} from {url}: {body[:200]}")
        try:
            return json.loads(body)
        except ValueError as error:  # cut on its way, or a page of a proxy
            raise RewardUnavailable(f"the answer of {url} is not JSON: {body[:100]!r}") from error

    def _told(self, text: str) -> str:
        """What a server or a library says, which may repeat what it was sent, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _resolved(url: str) -> tuple[str, list[str]]:
    """The URL with its environment variables replaced, and what is not to be told of it.

    Raises:
        UserError: one of them is not set.
    """
    names = _VARIABLE.findall(url)
    for name in names:
        if not os.environ.get(name):
            raise VariableNotSet(f"url: the environment variable {name} is not set, which {url} needs")
    resolved = _VARIABLE.sub(lambda found: os.environ[found[1]], url)
    return resolved, [resolved, *(os.environ[name] for name in names)] if names else []


def _token(variable: str) -> str:
    token = os.environ.get(variable, "")
    if not token:
        raise VariableNotSet(f"token_env: the environment variable {variable} is not set; it holds the bearer token")
    return token


def _sample(prompt: Prompt, trajectory: Trajectory) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "sample_index": trajectory.sample_index,
        "messages": prompt.messages,
        "response": trajectory.response_text,
        **trajectory.conversation,
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


def _score(answer: Any) -> float:
    """The score in an answer for one sample.

    Raises:
        Abstain: the server abstains.
        InvalidScore: the answer is not what the protocol says.
    """
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != 1:
        raise InvalidScore(f'the server\'s answer is not {{"scores": [...]}} with one entry: {answer!r:.100}')
    entry = scores[0]
    if isinstance(entry, dict) and isinstance(entry.get("abstain"), str):
        raise Abstain(entry["abstain"])
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        raise InvalidScore(f"the server's score is {entry!r:.100}, which is not a number")
    return float(entry)
