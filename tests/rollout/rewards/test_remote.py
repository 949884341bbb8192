"""The remote reward against real HTTP servers: protocol, faults, circuit breaker, the example server."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from examples import reward_server
from rollout.component import ComponentSpec, UserError
from rollout.config import RewardConfig, longest_pause_s
from rollout.rewards.circuit_breaker import CircuitBreaker
from rollout.rewards.errors import RewardErrorKind
from rollout.rewards.function import build_reward
from rollout.scoring import caller as reward_caller
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.report import RewardCounts
from rollout.scoring.service import RewardService
from rollout.trajectory import FinishReason, Prompt, Trajectory

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LATENCY_S = 0.02


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before retries last a hundredth."""
    monkeypatch.setattr(reward_caller, "longest_pause_s", lambda retry: longest_pause_s(retry) / 100)


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[str]:
    """A server in this process; gives its URL."""
    application = web.Application()
    application.router.add_post("/score", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/score"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def service_of(url: str, remote: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[RewardService]:
    spec = ComponentSpec(type="remote", url=url, **(remote or {}))
    service = RewardService(RewardConfig(functions=(spec,), **{"timeout_s": 5.0, **options}), run_seed=0)
    try:
        yield service
    finally:
        await service.close()


def case(index: int, text: str = "=7") -> tuple[Prompt, Trajectory]:
    messages = ({"role": "user", "content": "3+4?"},)
    trajectory = Trajectory(
        prompt_id=f"p{index}",
        sample_index=0,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )
    return Prompt(
        prompt_id=f"p{index}", messages=messages, token_ids=(1,), reference="7", task="sums", extra={"level": 2}
    ), trajectory


def answer(body: str, status: int = 200, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=body, status=status, headers=headers)

    return handler


async def one(handler: Handler, **options: Any) -> RewardRecord:
    async with serve(handler) as url, service_of(url, **options) as service:
        return await service.score(*case(0))


async def test_what_is_sent_and_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], await request.json()))
        return web.json_response({"scores": [0.25]})

    monkeypatch.setenv("TOKEN_OF_TEST", "sesame")
    record = await one(handler, remote={"token_env": "TOKEN_OF_TEST", "weight": 2.0})
    assert (record.clean, record.parts, record.outcome) == (0.5, {"remote": 0.25}, RewardOutcome.SCORED)
    sample = {
        "prompt_id": "p0",
        "sample_index": 0,
        "messages": [{"role": "user", "content": "3+4?"}],
        "response": "=7",
        "finish_reason": "stop",
        "reference": "7",
        "task": "sums",
        "extra": {"level": 2},
    }
    assert seen == [("Bearer sesame", {"samples": [sample]})]


@pytest.mark.parametrize(
    ("body", "status", "kind", "text"),
    [
        ('{"scores": [NaN]}', 200, RewardErrorKind.INVALID, "returned nan, which is not a finite number"),
        ('{"scores": [0.5, 0.5]}', 200, RewardErrorKind.INVALID, "with one entry"),
        ('{"scores": []}', 200, RewardErrorKind.INVALID, "with one entry"),
        ('{"score": 1}', 200, RewardErrorKind.INVALID, "with one entry"),
        ('{"scores": ["1"]}', 200, RewardErrorKind.INVALID, "the server's score is '1'"),
        ('{"scores": [true]}', 200, RewardErrorKind.INVALID, "the server's score is True"),
        ('{"scores": [0.', 200, RewardErrorKind.INFRASTRUCTURE, "not JSON"),
        ('{"scores": [7.0]}', 200, RewardErrorKind.INVALID, "returned 7, outside its score_range [0, 1]"),
        ("boom", 500, RewardErrorKind.INFRASTRUCTURE, "HTTP 500 from http://127.0.0.1"),
        ("later", 429, RewardErrorKind.INFRASTRUCTURE, "HTTP 429"),
        ("who are you?", 401, RewardErrorKind.CODE, "who are you?"),
        ("what?", 422, RewardErrorKind.CODE, "HTTP 422"),
    ],
)
async def test_every_fault_is_an_error_of_its_kind(body: str, status: int, kind: RewardErrorKind, text: str) -> None:
    record = await one(answer(body, status), remote={"score_range": [0.0, 1.0]})
    assert (record.observed, record.outcome, record.error_kind) == (None, RewardOutcome.ERROR, kind)
    assert text in record.error
    assert record.num_retries == (2 if kind is RewardErrorKind.INFRASTRUCTURE else 0)


async def test_the_server_may_abstain() -> None:
    record = await one(answer('{"scores": [{"abstain": "not my language"}]}'))
    assert (record.outcome, record.error, record.observed) == (RewardOutcome.ABSTAINED, "not my language", None)


async def test_nobody_listens() -> None:
    async with service_of("http://127.0.0.1:9/score") as service:
        record = await service.score(*case(0))
    assert (record.error_kind, record.num_retries) == (RewardErrorKind.INFRASTRUCTURE, 2)
    assert "ClientConnectorError" in record.error


async def test_retry_after_is_honoured() -> None:
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        if len(times) == 1:
            return web.Response(status=503, headers={"Retry-After": "0.3"})
        return web.json_response({"scores": [1.0]})

    record = await one(handler)
    assert (record.clean, record.num_retries) == (1.0, 1)
    assert times[1] - times[0] >= 0.3


async def test_cached_scores_are_not_asked_for_again() -> None:
    asked: Counter[str] = Counter()

    async def handler(request: web.Request) -> web.Response:
        asked[(await request.json())["samples"][0]["response"]] += 1
        return web.json_response({"scores": [1.0]})

    async with serve(handler) as url, service_of(url, {"cache": True}) as service:
        records = [await service.score(*case(0, text)) for text in ("a", "b", "a")]
    assert [record.cached for record in records] == [False, False, True]
    assert asked == {"a": 1, "b": 1}


class Hanging:
    """Answers at once, save for the requests (from 0) of each trajectory that hang, or that give a 500."""

    def __init__(self, hangs: set[int], errors: set[int]) -> None:
        self.hangs, self.errors = hangs, errors
        self.asked: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        name = (await request.json())["samples"][0]["prompt_id"]
        attempt = self.asked[name]
        self.asked[name] += 1
        if attempt in self.hangs:
            await asyncio.sleep(60)
        if attempt in self.errors:
            await asyncio.sleep(0.02)
            raise web.HTTPInternalServerError
        return web.json_response({"scores": [attempt]})


HEDGED = {"hedge_after_s": 0.05, "timeout_s": 2.0}


@pytest.mark.parametrize(
    ("hangs", "errors", "score"), [(set(), set(), 0.0), ({0}, set(), 1.0), ({0, 1}, set(), 2.0), ({0}, {1}, 2.0)]
)
async def test_a_request_that_is_not_answered_is_sent_again(hangs: set[int], errors: set[int], score: float) -> None:
    """Within one call: the first answer counts, and an error only if nothing is waited for."""
    server = Hanging(hangs, errors)
    async with serve(server.handle) as url, service_of(url, HEDGED) as service:
        begin = time.monotonic()
        record = await service.score(*case(0))
        assert time.monotonic() - begin < 1.9
    assert (record.clean, record.num_retries, server.asked["p0"]) == (score, 0, score + 1)


async def test_an_error_without_anything_to_wait_for_is_a_retry() -> None:
    server = Hanging(set(), {0})
    async with serve(server.handle) as url, service_of(url, HEDGED) as service:
        record = await service.score(*case(0))
    assert (record.clean, record.num_retries) == (1.0, 1)


async def test_a_server_that_hangs_is_not_flooded() -> None:
    server = Hanging(set(range(100)), set())
    remote = {"hedge_after_s": 0.01, "timeout_s": 1.0, "breaker_failures": 1000}
    async with serve(server.handle) as url, service_of(url, remote, max_retries=0) as service:
        records = await asyncio.gather(*(service.score(*case(index)) for index in range(20)))
    assert {record.error_kind for record in records} == {RewardErrorKind.INFRASTRUCTURE}
    assert sum(server.asked.values()) == 20 + 32


class Faulty:
    """Answers after a fixed time; a share of requests goes wrong, drawn by request number."""

    def __init__(self, timeouts: float, errors: float, malformed: float, nan: float) -> None:
        self._shares = {"timeout": timeouts, "500": errors, "malformed": malformed, "nan": nan}
        self._draws = random.Random(0)
        self.faults: Counter[str] = Counter()
        self.scored: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = (await request.json())["samples"][0]["prompt_id"]
        draw, fault = self._draws.random(), ""
        for kind, share in self._shares.items():
            if 0 <= draw < share:
                fault = kind
            draw -= share
        self.faults[fault] += 1
        await asyncio.sleep(60 if fault == "timeout" else LATENCY_S)
        if fault == "500":
            raise web.HTTPInternalServerError
        if fault == "malformed":
            return web.Response(text='{"scores": [0.', content_type="application/json")
        if fault == "nan":
            return web.Response(text='{"scores": [NaN]}', content_type="application/json")
        self.scored[name] += 1
        return web.json_response({"scores": [1.0]})


async def scored_by(server: Faulty, number: int, concurrency: int) -> list[RewardRecord]:
    """Records of ``number`` trajectories."""
    remote = {"timeout_s": 1.0, "max_connections": concurrency}
    async with serve(server.handle) as url, service_of(url, remote, max_concurrent_requests=concurrency) as service:
        return await asyncio.gather(*(service.score(*case(index)) for index in range(number)))


@pytest.mark.slow
async def test_a_faulty_server_leaves_no_trajectory_without_an_outcome() -> None:
    number = 400
    server = Faulty(timeouts=0.2, errors=0.1, malformed=0.05, nan=0.01)
    records = await scored_by(server, number, concurrency=64)
    counts = RewardCounts()
    for record in records:
        counts.add(record)
    metrics = counts.take()
    assert [record.prompt_id for record in records] == [f"p{index}" for index in range(number)]
    assert metrics["reward/num_scored"] + metrics["reward/num_errors"] == number
    kinds = ("infrastructure_errors", "invalid_scores", "code_errors")
    assert sum(metrics[f"reward/num_{kind}"] for kind in kinds) == metrics["reward/num_errors"]
    # Lies are not asked about again, the rest is, twice at most. On a busy machine a good answer may come too late.
    assert 0 < metrics["reward/num_invalid_scores"] <= server.faults["nan"]
    failed = server.faults["timeout"] + server.faults["500"] + server.faults["malformed"]
    assert failed <= metrics["reward/num_retries"] + metrics["reward/num_infrastructure_errors"] <= 1.2 * failed
    assert metrics["reward/num_code_errors"] == 0
    assert 0 < metrics["reward/num_infrastructure_errors"] < 0.09 * number  # 0.35 to the third is 4.3 %
    assert {r.prompt_id for r in records if r.outcome is RewardOutcome.SCORED} <= set(server.scored)
    assert all(record.observed is None for record in records if record.outcome is RewardOutcome.ERROR)


async def test_the_breaker_opens_holds_back_tries_and_closes() -> None:
    clock = 0.0
    breaker = CircuitBreaker(max_failures=3, pause_s=0.05, now=lambda: clock)

    async def request(error: Exception | None = None) -> None:
        async with breaker.request():
            made.append(clock)
            if error is not None:
                raise error

    made: list[float] = []
    for error in (OSError(), None, OSError(), OSError(), OSError()):  # the second one starts the count anew
        await asyncio.gather(request(error), return_exceptions=True)
    assert breaker.is_open and breaker.num_opened == 1 and len(made) == 5
    waiting = [asyncio.create_task(request(OSError() if index == 0 else None)) for index in range(4)]
    await asyncio.sleep(0.12)
    assert len(made) == 5, "nothing passes while it is open"
    clock = 0.05
    await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION, timeout=5)
    await asyncio.sleep(0.12)
    assert len(made) == 6 and breaker.is_open and breaker.num_opened == 2, "one trial, which failed"
    clock = 0.1
    await asyncio.wait(waiting, timeout=5)
    assert len(made) == 9 and not breaker.is_open
    assert sum(task.exception() is None for task in waiting) == 3


async def test_time_outs_that_end_last_do_not_open_the_breaker() -> None:
    """A hundred requests at once, a fifth of which time out: these end last, and there are as many as it takes."""
    breaker = CircuitBreaker(max_failures=20, pause_s=60.0)
    answered = asyncio.Event()

    async def request(fails: bool) -> None:
        async with breaker.request():
            if fails:
                await answered.wait()
                raise OSError

    tasks = [asyncio.create_task(request(index % 5 == 2)) for index in range(100)]
    await asyncio.wait([task for index, task in enumerate(tasks) if index % 5 != 2])
    answered.set()
    await asyncio.wait(tasks)
    assert sum(isinstance(task.exception(), OSError) for task in tasks) == 20
    assert not breaker.is_open and breaker.num_opened == 0
    failures = [asyncio.create_task(request(True)) for _ in range(19)]
    await asyncio.wait(failures)
    assert not breaker.is_open
    await asyncio.gather(request(True), return_exceptions=True)
    assert breaker.is_open, "none of the last twenty that began has succeeded"


async def test_an_answer_to_an_older_request_does_not_close_the_breaker() -> None:
    breaker, late = CircuitBreaker(max_failures=2, pause_s=60.0), asyncio.Event()

    async def request(waits: bool) -> None:
        async with breaker.request():
            if not waits:
                raise OSError
            await late.wait()

    old = asyncio.create_task(request(waits=True))
    await asyncio.sleep(0)
    await asyncio.gather(*(request(waits=False) for _ in range(2)), return_exceptions=True)
    assert breaker.is_open
    late.set()
    await old
    assert breaker.is_open


async def test_a_server_that_comes_back_loses_no_trajectory() -> None:
    down, hits = True, 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal hits
        hits += 1
        return web.Response(status=503) if down else web.json_response({"scores": [1.0]})

    remote = {"breaker_failures": 5, "breaker_pause_s": 0.2}
    async with serve(handler) as url, service_of(url, remote, max_retries=2) as service:
        tasks = [asyncio.create_task(service.score(*case(index))) for index in range(5)]
        await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(service.score(*case(index))) for index in range(5, 45)]
        await asyncio.sleep(0.5)
        assert hits <= 5 + 5 + 4, "an open breaker keeps the load off the server"
        down = False
        records = await asyncio.gather(*tasks)
    assert Counter(record.outcome for record in records)[RewardOutcome.SCORED] >= 40


def test_bad_options() -> None:
    with pytest.raises(UserError, match=r"r\.url: must begin with http:// or https://"):
        build_reward(ComponentSpec(type="remote", url="localhost:8000"), "r")
    with pytest.raises(UserError, match=r"r: hedge_after_s must be less than timeout_s \(1\)"):
        build_reward(ComponentSpec(type="remote", url="http://a", timeout_s=1, hedge_after_s=1), "r")


async def test_the_example_server(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    monkeypatch.setenv("REWARD_TOKEN", "sesame")
    server = uvicorn.Server(uvicorn.Config(reward_server.app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/score"
        async with service_of(url, {"token_env": "REWARD_TOKEN"}) as service:
            records = [await service.score(*case(0, text)) for text in ("3+4=7", "3+4=8")]
            prompt, trajectory = case(0)
            unanswerable = Prompt(
                prompt_id=prompt.prompt_id, messages=prompt.messages, token_ids=(1,), reference=None, task="sums"
            )
            records.append(await service.score(unanswerable, trajectory))
        async with service_of(url) as stranger:
            records.append(await stranger.score(*case(0)))
    finally:
        server.should_exit = True
        await serving
    assert [record.clean for record in records] == [1.0, 0.0, None, None]
    assert records[2].error == "there is no reference answer"
    assert records[3].error_kind is RewardErrorKind.CODE and "wrong or missing bearer token" in records[3].error


async def test_secrets_of_the_url_are_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats what it was sent: in a refusal, in what is no JSON, and in what is no score."""
    monkeypatch.setenv("SCORE_PASSWORD", "hunter2-hunter2")
    monkeypatch.setenv("SCORE_KEY", "k-0123456789")
    monkeypatch.setenv("SCORE_TOKEN", "t-0123456789")
    seen: list[str] = []

    async def repeat(request: web.Request) -> web.Response:
        heard = f"{request.query.get('key')} {request.headers.get('Authorization')}"
        seen.append(heard)
        status, text = [(400, heard), (200, heard), (200, f'{{"scores": ["{heard}"]}}')][len(seen) % 3]
        return web.Response(status=status, text=text)

    async with serve(repeat) as url:
        asked = f"{url}?key=${{SCORE_KEY}}"
        async with service_of(asked, {"token_env": "SCORE_TOKEN"}, max_retries=0) as service:
            records = [await service.score(*case(index)) for index in range(3)]
    assert all("k-0123456789" in heard and "t-0123456789" in heard for heard in seen)
    told = " ".join(str(record) for record in records)
    assert "0123456789" not in told
    assert "?key=${SCORE_KEY}" in told and "***" in told
