from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, Fault

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import read_retry_after
from feldspar.endpoint.openai_chat import without_reasoning
from feldspar.errors import DiskError, TeacherError
from feldspar.records import Message
from feldspar.teacher import VERDICT, Journal, Refused, Reply, Teacher, ask_judge, open_teacher

CONFIG = TeacherConfig(concurrency=8, max_retries=3)


def ask(
    teacher: Teacher, text: str, draw: int = 0, max_tokens: int = 50, may_grow: bool = True
) -> Awaitable[Reply]:
    messages = [Message(role="user", content=text)]
    return teacher.ask(
        messages, stage="s", draw=draw, temperature=0.7, max_tokens=max_tokens, may_grow=may_grow
    )


def together(teacher: Teacher, *questions: Callable[[], Awaitable[Reply]]) -> list[Reply]:
    async def run() -> list[Reply]:
        async with teacher:
            return list(await asyncio.gather(*(question() for question in questions)))

    return asyncio.run(run())


def echo(call: Call) -> str:
    return f"{call.prompt} {call.body['seed']}"


class Full(Journal):
    """Nothing more fits, from the moment that it is told so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_full = asyncio.Event()

    async def room(self) -> None:
        await self.is_full.wait()
        raise DiskError("full")


def test_a_call_that_fails_when_nobody_waits_for_it_any_more_says_nothing(tmp_path: Path) -> None:
    unseen: list[object] = []

    async def run(teacher: Teacher, journal: Full) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: unseen.append(said))
        async with teacher:
            asking = asyncio.ensure_future(ask(teacher, "hi"))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            journal.is_full.set()
            await asyncio.sleep(0.05)
            gc.collect()

    with FakeTeacher(echo) as server, Full(tmp_path / "j") as journal:
        asyncio.run(run(open_teacher(CONFIG, server.url, journal), journal))
        assert server.num_served == 0
    assert not unseen


def test_an_answer_is_paid_once_per_draw_and_model(tmp_path: Path) -> None:
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        both = together(teacher, lambda: ask(teacher, "hi"), lambda: ask(teacher, "hi"))
        assert [reply.text for reply in both] == ["hi 0", "hi 0"]
        assert server.num_served == 1
        (again,) = together(teacher, lambda: ask(teacher, "hi"))
        assert again.cached
        (other,) = together(teacher, lambda: ask(teacher, "hi", draw=1))
        assert (other.text, other.cached) == ("hi 1", False)
        revised = open_teacher(CONFIG.model_copy(update={"revision": "2"}), server.url, journal)
        assert revised.key == "expert@2"
        assert not together(revised, lambda: ask(revised, "hi"))[0].cached


def test_the_servers_revision_and_not_its_address_is_the_key(tmp_path: Path) -> None:
    card = {"id": "expert", "revision": "abc"}
    with Journal(tmp_path / "j") as journal:
        for is_first in (True, False):
            with FakeTeacher(echo, card=card) as server:
                teacher = open_teacher(CONFIG, server.url, journal)
                assert teacher.key == "expert@abc"
                assert together(teacher, lambda t=teacher: ask(t, "hi"))[0].cached != is_first


@pytest.mark.parametrize(
    ("fault", "least_seconds"),
    [
        (Fault(429, {"Retry-After": "1"}), 1.0),
        (Fault(503), 0.0),
        (Fault(500), 0.0),
        (Fault(0), 0.0),
        (Fault(200, text='{"id": "x", "choi'), 0.0),
        (Fault(200, text='{"choices": []}'), 0.0),
    ],
    ids=["429", "503", "500", "reset", "half body", "no choices"],
)
def test_faults_are_waited_out(tmp_path: Path, fault: Fault, least_seconds: float) -> None:
    with (
        FakeTeacher(echo, fault=lambda call: fault if call.attempt == 1 else None) as server,
        Journal(tmp_path / "j") as journal,
    ):
        teacher = open_teacher(CONFIG, server.url, journal)
        began = time.monotonic()
        assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "hi 0"
        assert time.monotonic() - began > least_seconds
        assert (server.num_served, len(server.calls)) == (1, 2)


FILTERED = '{"error": {"message": "as the test asked", "code": "content_filter"}}'


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refusal_of_content_is_for_good_and_not_asked_again(tmp_path: Path, status: int) -> None:
    with (
        FakeTeacher(fault=lambda call: Fault(status, text=FILTERED)) as server,
        Journal(tmp_path / "j") as journal,
    ):
        teacher = open_teacher(CONFIG, server.url, journal)
        for _ in range(2):
            with pytest.raises(Refused, match=f"{status} as the test asked"):
                together(teacher, lambda: ask(teacher, "hi"))
        assert len(server.calls) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_that_may_be_the_servers_is_asked_again_by_the_next_run(
    tmp_path: Path, status: int
) -> None:
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        together(teacher, lambda: ask(teacher, "ho"))
        server.fault = lambda call: Fault(status)
        with pytest.raises(Refused, match=f"{status} as the test asked"):
            together(teacher, lambda: ask(teacher, "hi"))
        assert len(server.calls) == 2
        server.fault = lambda call: None
        assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "hi 0"


def test_a_call_that_always_fails_is_refused_and_asked_again_next_time(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_retries": 1})
    with FakeTeacher(fault=lambda call: Fault(500)) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(config, server.url, journal)
        for num_calls in (2, 4):
            with pytest.raises(Refused, match="500"):
                together(teacher, lambda: ask(teacher, "hi"))
            assert len(server.calls) == num_calls


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    refused = []

    async def run(teacher: Teacher) -> None:
        async with teacher:
            for number in range(100):
                with contextlib.suppress(Refused):
                    await ask(teacher, f"{number}")
                refused.append(number)

    with FakeTeacher(fault=lambda call: Fault(403)) as server, Journal(tmp_path / "j") as journal:
        with pytest.raises(TeacherError, match="failure_budget"):
            asyncio.run(run(open_teacher(CONFIG, server.url, journal)))
        assert len(refused) == 19


def test_a_server_that_went_away_stops_the_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        with FakeTeacher(echo) as server:
            teacher = open_teacher(
                CONFIG.model_copy(update={"max_retries": 1}), server.url, journal
            )
        with pytest.raises(TeacherError, match=r"is gone .* run again"):
            together(teacher, lambda: ask(teacher, "hi"))


def test_nobody_there_is_said_with_the_cure(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(TeacherError, match=r"http://127.0.0.1:9/v1 .* start the server"),
    ):
        open_teacher(CONFIG, "http://127.0.0.1:9/v1", journal)


def test_a_model_that_is_not_served_is_named_with_those_that_are(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"model": "gpt"})
    with (
        FakeTeacher() as server,
        Journal(tmp_path / "j") as journal,
        pytest.raises(TeacherError, match="no model 'gpt'; there are: expert"),
    ):
        open_teacher(config, server.url, journal)


def test_the_key_comes_from_the_environment_and_stays_out_of_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MY_KEY", "s3cret")
    config = CONFIG.model_copy(update={"key_variable": "MY_KEY"})
    refusal = Fault(401, text='{"error": {"message": "bad key s3cret"}}')
    with FakeTeacher(fault=lambda call: refusal) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(config, server.url, journal)
        assert server.authorizations == {"Bearer s3cret"}
        with pytest.raises(TeacherError, match="MY_KEY") as caught:
            together(teacher, lambda: ask(teacher, "hi"))
        assert "s3cret" not in str(caught.value)
        server.fault = lambda call: Fault(403, text='{"error": {"message": "key s3cret bars you"}}')
        with pytest.raises(Refused, match="bars you") as refused:
            together(teacher, lambda: ask(teacher, "hi"))
        assert "s3cret" not in str(refused.value)


def test_an_answer_cut_off_is_asked_with_double_room_where_it_may_grow(tmp_path: Path) -> None:
    def finish(call: Call) -> str:
        return "length" if call.body["max_tokens"] < 100 else "stop"

    with FakeTeacher(echo, finish=finish) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        (reply,) = together(teacher, lambda: ask(teacher, "hi", max_tokens=50))
        assert reply.finish_reason == "stop"
        (short,) = together(teacher, lambda: ask(teacher, "hi", max_tokens=20))
        assert short.finish_reason == "length"
        (cut,) = together(teacher, lambda: ask(teacher, "ho", max_tokens=50, may_grow=False))
        assert cut.finish_reason == "length"
        assert [call.body["max_tokens"] for call in server.calls] == [50, 100, 20, 40, 50]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\n2 and 2\n</think>\n\n4", "4"),
        ("2 and 2</think>4", "4"),
        ("<think>no end", ""),
        ("4 <b>", "4 <b>"),
        ("4<|im_end|>\n", "4"),
        ("4</s></s>", "4"),
        ("the mark </s> ends a text", "the mark </s> ends a text"),
    ],
)
def test_reasoning_is_no_answer(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer


def test_retry_after_is_read_as_seconds_and_as_date() -> None:
    assert read_retry_after("2.5") == 2.5
    assert read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=1445412470.0) == 10.0
    assert read_retry_after("soon") == read_retry_after(None) == 0.0


def test_an_unreadable_judge_is_asked_once_more_with_the_complaint(tmp_path: Path) -> None:
    def judge(call: Call) -> str:
        return "Hm." if len(call.body["messages"]) == 1 else "Explanation: right.\nVerdict: YES"

    async def run(teacher: Teacher) -> None:
        async with teacher:
            messages = [Message(role="user", content="Is it?")]
            judged = await ask_judge(teacher, messages, VERDICT, stage="j", max_tokens=50)
            assert judged == (True, "right.")

    with FakeTeacher(judge) as server, Journal(tmp_path / "j") as journal:
        asyncio.run(run(open_teacher(CONFIG, server.url, journal)))
        first, second = server.calls
        assert second.body["messages"][1]["content"] == "Hm."
        assert "Verdict: YES or Verdict: NO" in second.body["messages"][2]["content"]
        assert first.body["seed"] != second.body["seed"]
        assert first.body["temperature"] == second.body["temperature"] == 0


def test_no_more_calls_than_given_are_in_flight(tmp_path: Path) -> None:
    with (
        FakeTeacher(echo, seconds=lambda call: 0.02) as server,
        Journal(tmp_path / "j") as journal,
    ):
        teacher = open_teacher(CONFIG, server.url, journal)
        together(teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(60)))
        assert server.peak_in_flight == 8
