"""What can go wrong with one call, and what is to be done about it."""

from __future__ import annotations

import email.utils
import json
import os
import time
from typing import Literal, NamedTuple

import openai

MAX_REASON = 200
"""Characters of a server's message that are kept."""


class Refused(Exception):
    """The server will not answer this call, now or later; the sample is rejected for `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fault(NamedTuple):
    """`retry`: the same call may work in a while. `push back`: and the server has too much to do.
    `refused`: it will never work. `locked out`: no call will, before the user mends the key."""

    kind: Literal["retry", "push back", "refused", "locked out"]
    reason: str
    retry_after_seconds: float = 0.0
    is_about_content: bool = False
    """Refused for what the call says, so that asking again is of no use in any run."""
    is_connection: bool = False
    """Nothing came back at all."""


MENDABLE = (openai.APIError, json.JSONDecodeError)
"""What a call may raise that `read_fault` understands."""


NO_SECRET = "none"
"""The key of a server that wants none."""


def secret_in(variable: str) -> str:
    """The key that an environment variable holds."""
    return os.environ.get(variable) or NO_SECRET


def without_secret(fault: Fault, secret: str) -> Fault:
    """Servers repeat the key that they refuse."""
    return (
        fault._replace(reason=fault.reason.replace(secret, "***")) if secret != NO_SECRET else fault
    )


def read_fault(error: Exception) -> Fault:
    """Sort an error of the client by what is to be done."""
    if isinstance(error, openai.APITimeoutError):
        return Fault("push back", "no answer in time", is_connection=True)
    if isinstance(error, openai.APIConnectionError):
        return Fault("retry", f"connection lost: {_one_line(error)}", is_connection=True)
    if not isinstance(error, openai.APIStatusError):
        return Fault("retry", f"no readable answer: {_one_line(error)}")
    status = error.status_code
    wait = read_retry_after(error.response.headers.get("retry-after"))
    if status in (429, 503):
        return Fault("push back", str(status), wait)
    if status in (408, 409) or status >= 500:
        return Fault("retry", str(status), wait)
    if status == 401:
        return Fault("locked out", str(status))
    is_about_content = status in (400, 413, 422)
    return Fault("refused", f"{status} {_message(error)}".strip(), 0.0, is_about_content)


def read_retry_after(value: str | None, now: float | None = None) -> float:
    """Seconds to wait by a Retry-After header, in seconds or a date; 0 where it is neither."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return _clip(body["message"])
    return _clip(error.response.text)


def _one_line(error: Exception) -> str:
    return _clip(str(error.__cause__ or error) or type(error).__name__)


def _clip(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON]
