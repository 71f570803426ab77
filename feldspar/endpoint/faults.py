"""What can go wrong with one call, and what is to be done about it."""

from __future__ import annotations

import email.utils
import math
import os
import re
import time
from typing import Literal, NamedTuple

from feldspar.endpoint.calls import Usage

MAX_REASON = 200
"""Characters of a server's message that are kept."""
NO_SECRET = "none"
"""The key of a server that wants none."""

Kind = Literal["retry", "push back", "refused", "stop"]
Why = Literal["", "key", "credit", "redirect", "wait", "address", "gone", "ended"]


class Fault(NamedTuple):
    """`retry`: the same call may work in a while. `push back`: and the server has too much to do.
    `refused`: it will never work. `stop`: no call will, before the user mends something."""

    kind: Kind
    reason: str
    retry_after_seconds: float = 0.0
    is_about_content: bool = False
    """Refused for what the call says, so that asking again is of no use in any run."""
    is_connection: bool = False
    """Nothing came back at all."""
    status: int = 0
    """The HTTP status, or the one that an error body names; 0 where there is none."""
    parameter: str = ""
    """The field of the request that the server does not take, where it names one."""
    why: Why = ""
    """What has to be mended, of a `stop`."""
    usage: Usage = Usage()
    """What a reply that is no answer cost all the same."""


class Refused(Exception):
    """The model will not answer this call; the sample is rejected for `reason`."""

    def __init__(
        self, reason: str, *, is_about_content: bool = False, gave_up: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gave_up = gave_up
        """Whether it failed each time, and was not turned down."""
        self.is_about_content = is_about_content
        """Whether the server said that it is the content: then no later run need ask again."""


class NoAnswers(Exception):
    """No call will be answered before the user mends something. Roles say who it was."""

    def __init__(self, place: str, why: Why, reason: str, *, cure: str = "") -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        """`at http://localhost:8000/v1`."""
        self.why = why
        self.reason = reason
        self._cure = cure

    def sentence(self, who: str) -> str:
        """One line with the cure: `the teacher at URL is gone (...); start it again, ...`."""
        return f"the {who} {self.place} {self._fault()}"

    def _fault(self) -> str:
        again = "then run again: every answer so far is kept"
        match self.why:
            case "key":
                return f"does not take the key; put a valid one into {self._cure}"
            case "credit":
                return f"has no credit left ({self.reason}); top it up, {again}"
            case "redirect":
                return (
                    f"sends calls on to {self.reason}, which are not followed; name that address "
                    "as the `endpoint` if it is meant"
                )
            case "wait":
                return f"{self.reason}; run again then: every answer so far is kept"
            case "address":
                return (
                    f"knows no such call ({self.reason}); mend the `endpoint` (a URL that ends in "
                    "/v1) or the `model` in the recipe, then run again"
                )
            case "ended":
                return f"{self.reason}; {self._cure}"
            case _:
                return f"is gone ({self.reason}); start it again, {again}"


def secret_in(variable: str) -> str:
    """The key that an environment variable holds."""
    return os.environ.get(variable, "").strip() or NO_SECRET


def without_secret(fault: Fault, secret: str) -> Fault:
    """Servers repeat the key that they refuse."""
    if secret == NO_SECRET or secret not in fault.reason:
        return fault
    return fault._replace(reason=fault.reason.replace(secret, "***"))


# What servers say in a 400, 403 or 429 that is about money and not about the call.
_CREDIT = re.compile(
    r"insufficient[ _](?:quota|credits?|balance|funds)|out of credits?|"
    r"credit balance is too low|billing[ _](?:hard|not)|payment required|spending limit",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"exceeded your current quota", re.IGNORECASE)
"""OpenAI's words for no credit, and Gemini's for a limit of the minute, which says when to come."""
_COME_AGAIN = re.compile(
    r"(?:re)?try (?:again )?in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(m?s))?", re.IGNORECASE
)
_KEY = re.compile(
    r"(?:api[ _-]?key|x-api-key)\b.{0,40}\b(?:not valid|invalid|incorrect|missing|expired)|"
    r"\b(?:invalid|incorrect|missing|expired|no)\s+(?:x-)?api[ _-]?key|invalid_api_key",
    re.IGNORECASE,
)
_CONTENT = re.compile(
    r"content[ _-]?(?:filter|policy|management policy)|flagged|moderation|prohibited_content|"
    r"safety (?:system|filter|reasons|policy)|responsible ?ai",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|maximum context|prompt is too long|too many tokens|"
    r"input (?:length|is too long)|reduce the length|n_ctx|tokens? limit",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(
    r"unsupported|not (?:be )?supported|does(?: not|n't) support|unknown|unrecogni[sz]ed|"
    r"unexpected|extra (?:inputs?|fields?)|extra_forbidden|not permitted|not allowed|"
    r"deprecated|invalid (?:parameter|argument|field)|no such (?:parameter|field)|"
    r"cannot be (?:set|used)|not available|only the default",
    re.IGNORECASE,
)


class ErrorBody(NamedTuple):
    """What an error's body says, in whichever of the common shapes it came."""

    message: str = ""
    parameter: str = ""
    """The field that it is about, where it names one."""
    code: str = ""
    status: int = 0
    """An HTTP status within the body; 0 where there is none."""
    wait_seconds: float = 0.0
    """Until the call may be asked again, where it says so; else 0."""


def read_error_body(body: object) -> ErrorBody | None:
    """None where this is no error body.

    {"error": {"message": ..., "param": "seed", "code": ...}}, {"error": "..."}, {"message": ...},
    {"detail": [{"loc": ["body", "seed"], "msg": ...}]}, Google's list of such, Anthropic's
    {"type": "error", "error": {"type": "overloaded_error", ...}}.
    """
    if isinstance(body, list) and body:
        return read_error_body(body[0])
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        return ErrorBody(error)
    if not isinstance(error, dict):
        if isinstance(body.get("detail"), list | str) and body["detail"]:
            return _read_detail(body["detail"])
        if body.get("object") != "error" and "choices" in body:
            return None
        error = body
        if not isinstance(error.get("message"), str):
            return None
    words = [str(error[name]) for name in ("code", "type", "status") if error.get(name)]
    status = next(
        (
            v
            for v in (error.get("code"), error.get("status"))
            if isinstance(v, int) and 400 <= v < 600
        ),
        0,
    )
    message = error.get("message")
    parameter = error.get("param")
    message = message if isinstance(message, str) else ""
    return ErrorBody(
        message,
        parameter if isinstance(parameter, str) else "",
        " ".join(words),
        status,
        _told_wait(message, error.get("details")),
    )


def _told_wait(message: str, details: object) -> float:
    """Seconds by Google's `{"retryDelay": "34s"}`, or by words such as "try again in 1m20s"."""
    for detail in details if isinstance(details, list) else ():
        told = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(told, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)s", told)):
            return float(found[1])
    said = _COME_AGAIN.search(message)
    if said is None:
        return 0.0
    hours, minutes, number, unit = said.groups()
    try:
        seconds = float(number or 0) / (1000 if unit and unit.lower() == "ms" else 1)
    except ValueError:
        seconds = 0.0
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + seconds


def _read_detail(detail: object) -> ErrorBody:
    if isinstance(detail, str):
        return ErrorBody(detail)
    first = detail[0] if isinstance(detail, list) else None
    if not isinstance(first, dict):
        return ErrorBody(str(detail))
    place = first.get("loc")
    names = [part for part in place if isinstance(part, str)] if isinstance(place, list) else []
    parameter = names[1] if len(names) > 1 and names[0] == "body" else ""
    message = f"{first.get('msg') or ''} ({'.'.join(names)})" if names else str(first.get("msg"))
    return ErrorBody(message, parameter, str(first.get("type") or ""))


def fault_of(
    status: int,
    error: ErrorBody,
    retry_after: str | None = None,
    sent: tuple[str, ...] = (),
) -> Fault:
    """Sort an error reply by what is to be done. `sent`: names of the request's parameters."""
    reason = one_line(f"{status} {error.message}")
    told = f"{error.code} {error.message}"
    wait = read_retry_after(retry_after) or error.wait_seconds
    is_quota = _QUOTA.search(told) and not (status == 429 and wait)
    if status == 402 or (status < 500 and (_CREDIT.search(told) or is_quota)):
        return Fault("stop", reason, why="credit", status=status)
    if status == 401 or (status in (400, 403) and _KEY.search(told)):
        return Fault("stop", reason, why="key", status=status)
    if status in (429, 503, 529):
        return Fault("push back", reason, wait, status=status)
    if status in (408, 409, 425) or status >= 500:
        return Fault("retry", reason, wait, status=status)
    if _TOO_LONG.search(told) and "max_completion_tokens' instead" not in told:
        return Fault("refused", reason, status=status)
    parameter = _parameter_of(error, told, sent) if status in (400, 404, 422) else ""
    is_about_content = not parameter and bool(_CONTENT.search(told))
    return Fault(
        "refused", reason, is_about_content=is_about_content, status=status, parameter=parameter
    )


def _parameter_of(error: ErrorBody, told: str, sent: tuple[str, ...]) -> str:
    """The parameter that a server does not take, by the field that it names or by its words."""
    if not _NOT_TAKEN.search(told):
        return ""
    if error.parameter:
        return error.parameter if error.parameter in sent else ""
    # The first that is named: "'max_tokens' is not supported; use 'max_completion_tokens'".
    named = [(m.start(), name) for name in sent if (m := re.search(rf"\b{name}\b", told))]
    return min(named)[1] if named else ""


def read_retry_after(value: str | None, now: float | None = None) -> float:
    """Seconds to wait by a Retry-After header, in seconds or a date; 0 where it is neither."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return 0.0 if math.isnan(seconds) else max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, OverflowError):
        return 0.0


def one_line(text: str) -> str:
    """So much of a foreign text as an error shows, without line ends and control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 8 * MAX_REASON])
    return " ".join(plain.split())[:MAX_REASON]
