"""Whose fault a failed reward call is: the infrastructure's, the score's, or the code's."""

from __future__ import annotations

from enum import StrEnum

from rollout.rewards.base import InvalidScore, RewardUnavailable

CONNECTION_ERRORS = frozenset(
    {"TransportError", "ClientConnectionError", "ClientPayloadError", "APIConnectionError", "ServiceUnavailableError"}
)
"""Names of base classes that HTTP clients (httpx, aiohttp, openai) use for a connection that failed."""
TOO_MANY_REQUESTS = 429


class RewardErrorKind(StrEnum):
    """Whose fault it is that there is no score."""

    INFRASTRUCTURE = "infrastructure"
    """Something that may work the next time: a connection, a time-out, a server's 5xx or 429, a dead worker."""
    INVALID = "invalid"
    """A score came back and is not one: NaN, infinite, of a wrong type or number, out of the declared range."""
    CODE = "code"
    """The reward function raised anything else."""


def error_kind(error: BaseException) -> RewardErrorKind:
    """The kind of an exception that a reward function raised.

    An HTTP error is judged by its status (5xx and 429 are the infrastructure's), whichever client raised it.
    """
    if isinstance(error, InvalidScore):
        return RewardErrorKind.INVALID
    if isinstance(error, RewardUnavailable):
        return RewardErrorKind.INFRASTRUCTURE
    status = _http_status(error)
    if status is not None:
        transient = status >= 500 or status == TOO_MANY_REQUESTS
        return RewardErrorKind.INFRASTRUCTURE if transient else RewardErrorKind.CODE
    names = {ancestor.__name__ for ancestor in type(error).__mro__}
    if isinstance(error, OSError | TimeoutError) or names & CONNECTION_ERRORS:
        return RewardErrorKind.INFRASTRUCTURE
    return RewardErrorKind.CODE


def _http_status(error: BaseException) -> int | None:
    """Status of an HTTP error of aiohttp and urllib (``status``), requests or httpx (``response``)."""
    for owner, name in ((getattr(error, "response", None), "status_code"), (error, "status_code"), (error, "status")):
        status = getattr(owner, name, None)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None


def one_line(error: BaseException) -> str:
    """Type and first line of the message of an exception, at most 300 characters."""
    text = str(error) if isinstance(error, InvalidScore | RewardUnavailable) else f"{type(error).__name__}: {error}"
    return (text.splitlines() or [type(error).__name__])[0][:300]
