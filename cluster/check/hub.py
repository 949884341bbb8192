"""Whether models can be fetched from the hub: a short request by the library that would fetch them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

MODELS = "/api/models"
"""Where a hub lists its models."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What came of it: whether models can be fetched, whether that is as the user wants it, and in words."""

    is_online: bool
    is_as_wished: bool
    text: str


def ask_hub(timeout_s: float = 5.0) -> HubAnswer:
    """Ask the hub for one model, by way of proxies and certificates as for a download.

    ``HF_HUB_OFFLINE`` keeps off it; ``HF_ENDPOINT`` names another one. Only an answer that a hub gives counts: proxies
    and log-in pages answer too.

    Args:
        timeout_s: longest wait for a connection, and then for the answer.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return HubAnswer(False, True, "offline (HF_HUB_OFFLINE is set): only folders and cached models")
    from huggingface_hub import constants, get_session

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    begin = time.monotonic()
    try:
        answer = get_session().get(endpoint + MODELS, params={"limit": "1"}, timeout=timeout_s)
    except Exception as error:  # of whichever HTTP library it uses, and of what that is set up with
        reason = " ".join(str(error).split())[:200]
        return HubAnswer(False, False, f"{endpoint} cannot be reached: {type(error).__name__}: {reason}")
    if answer.status_code != 200:
        return HubAnswer(False, False, f"{endpoint} answers with HTTP status {answer.status_code}")
    try:
        is_hub = isinstance(answer.json(), list)
    except ValueError:
        is_hub = False
    if not is_hub:
        return HubAnswer(False, False, f"{endpoint} answers, but not as a model hub does (a log-in page?)")
    return HubAnswer(True, True, f"online: {endpoint} answers in {time.monotonic() - begin:.1f} s")
