"""What an error reply asks for: to wait, to stop, or to leave the call."""

from __future__ import annotations

import pytest

from feldspar.endpoint.faults import Fault, fault_of, read_error_body

# Gemini's words for a limit of the minute are OpenAI's for no credit.
OF_THE_MINUTE = (
    "You exceeded your current quota, please check your plan and billing details. "
    "Please retry in 34.07s."
)


def told(status: int, body: object, retry_after: str | None = None) -> Fault:
    error = read_error_body(body)
    assert error is not None
    return fault_of(status, error, retry_after)


def test_a_quota_that_says_when_to_come_again_is_waited_for() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    error = {"code": 429, "message": OF_THE_MINUTE, "status": "RESOURCE_EXHAUSTED"}
    by_detail = told(429, [{"error": {**error, "details": [{"@type": "other"}, delay]}}])
    assert (by_detail.kind, by_detail.retry_after_seconds) == ("push back", 34)
    by_words = told(429, {"error": error})
    assert (by_words.kind, by_words.retry_after_seconds) == ("push back", 34.07)
    by_header = told(429, {"error": {**error, "message": OF_THE_MINUTE[:60]}}, "12")
    assert (by_header.kind, by_header.retry_after_seconds) == ("push back", 12)


def test_a_quota_without_an_hour_is_money() -> None:
    body = {"error": {"message": OF_THE_MINUTE.partition(" Please")[0], "code": "x"}}
    assert told(429, body).why == "credit"
    # It says so itself, whatever else it says.
    spent = {"error": {"message": "try again in 5s", "code": "insufficient_quota"}}
    assert told(429, spent, "5").why == "credit"


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 20s.", 20),
        ("Please try again in 1m20.5s.", 80.5),
        ("Try again in 450ms", 0.45),
        ("try again in 2h0m3s", 7203),
        ("try again in a while", 0),
        ("retry in 1.2.3s", 0),
    ],
)
def test_words_that_say_how_long(words: str, seconds: float) -> None:
    assert told(429, {"error": {"message": words}}).retry_after_seconds == seconds
