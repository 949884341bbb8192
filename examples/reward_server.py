"""A reward server for `type: remote`. Put your own model or judge into `judge`.

    REWARD_TOKEN=secret python -m uvicorn examples.reward_server:app --host 127.0.0.1 --port 8000

FastAPI and uvicorn come with vLLM. This is the configuration; the run needs REWARD_TOKEN in its environment, too:

    reward:
      functions:
        - {type: remote, url: "http://127.0.0.1:8000/score", token_env: REWARD_TOKEN, score_range: [0, 1]}

The protocol is described in docs/rewards.md.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel


class Sample(BaseModel):
    """One response to one prompt."""

    prompt_id: str
    sample_index: int
    messages: list[dict[str, str]]
    response: str
    finish_reason: str
    reference: str | None
    task: str
    extra: dict[str, Any]


class ScoreRequest(BaseModel):
    """What dvpo sends. The list has one entry."""

    samples: list[Sample]


class Abstention(BaseModel):
    """Instead of a score: why there is none."""

    abstain: str


class ScoreResponse(BaseModel):
    """One entry for each sample, in the same order."""

    scores: list[float | Abstention]


app = FastAPI(title="reward server")


def judge(sample: Sample) -> float | Abstention:
    """1 if the last word of the response is the reference. A plain `def` below runs it in a thread: it may be slow."""
    if sample.reference is None:
        return Abstention(abstain="there is no reference answer")
    words = sample.response.replace("=", " ").split()
    return 1.0 if words and words[-1] == sample.reference else 0.0


def check_token(authorization: str) -> None:
    """Refuse requests without the token in REWARD_TOKEN, if that is set."""
    token = os.environ.get("REWARD_TOKEN")
    if token and not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "wrong or missing bearer token")


@app.post("/score")
def score(request: ScoreRequest, authorization: str = Header("")) -> ScoreResponse:
    """Score the samples."""
    check_token(authorization)
    return ScoreResponse(scores=[judge(sample) for sample in request.samples])


@app.get("/health")
def health() -> dict[str, str]:
    """For load balancers."""
    return {"status": "ok"}
