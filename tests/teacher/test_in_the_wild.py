"""A teacher's protocol as it is met in the wild: one oddity at a time, then all of them at once."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, Fault, Reply
from oddities import PASSING, REFUSING, REMEMBERED, TOLERATED
from test_client import ask, echo, together

from feldspar.config import BudgetConfig, GenerateConfig, TeacherConfig
from feldspar.endpoint import retry, transport
from feldspar.errors import TeacherError
from feldspar.generate import generate_samples
from feldspar.records import Leaf, Sample, Seed
from feldspar.steps import Workspace
from feldspar.teacher import Budget, BudgetSpent, Journal, Refused, open_teacher

CONFIG = TeacherConfig(concurrency=8, max_retries=3, timeout_seconds=2)
DEADLINE_SECONDS = 120


@pytest.mark.parametrize("name", TOLERATED)
def test_what_says_the_same_in_another_form_is_read(tmp_path: Path, name: str) -> None:
    with FakeTeacher(echo, odd=TOLERATED[name]) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        (reply,) = together(teacher, lambda: ask(teacher, "hi"))
        assert reply.text == "hi 0"
        assert len(server.calls) == 1
        assert 0 < reply.prompt_tokens < 1000
        assert 0 < reply.completion_tokens < 1000
        assert together(teacher, lambda: ask(teacher, "hi"))[0].cached


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again_and_never_kept(tmp_path: Path, name: str) -> None:
    def odd(call: Call, reply: Reply) -> Reply | Fault:
        return PASSING[name](call, reply) if call.attempt == 1 else reply

    with FakeTeacher(echo, odd=odd) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "hi 0"
        assert len(server.calls) == 2
        assert [entry.text for entry in journal.answers()] == ["hi 0"]


@pytest.mark.parametrize("name", [n for n in PASSING if n != "a byte now and then"])
def test_what_stays_is_no_answer_and_says_why(tmp_path: Path, name: str) -> None:
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG.model_copy(update={"max_retries": 1}), server.url, journal)
        together(teacher, lambda: ask(teacher, "ho"))
        server.odd = PASSING[name]
        with pytest.raises((Refused, TeacherError)) as told:
            together(teacher, lambda: ask(teacher, "hi"))
        assert str(told.value)
        assert len(list(journal.answers())) == 1
        server.odd = lambda call, reply: reply
        assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "hi 0"


@pytest.mark.parametrize("name", REFUSING)
def test_refusals_of_content_alone_are_remembered(tmp_path: Path, name: str) -> None:
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        together(teacher, lambda: ask(teacher, "ho"))
        server.odd = REFUSING[name]
        with pytest.raises(Refused):
            together(teacher, lambda: ask(teacher, "hi"))
        assert len(server.calls) == 2
        server.odd = lambda call, reply: reply
        if name in REMEMBERED:
            with pytest.raises(Refused):
                together(teacher, lambda: ask(teacher, "hi"))
            assert len(server.calls) == 2
        else:
            assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "hi 0"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(402), "has no credit left .*402.*; top it up, then run again"),
        (
            Fault(429, text='{"error": {"message": "quota", "code": "insufficient_quota"}}'),
            "has no credit left",
        ),
        (
            Fault(400, text='{"error": {"message": "Your credit balance is too low"}}'),
            "has no credit left",
        ),
        (Fault(200, text='{"error": {"message": "no", "code": 402}}'), "has no credit left"),
        (Fault(401), "does not take the key; put a valid one into the .* OPENAI_API_KEY"),
        (
            Fault(400, text='[{"error": {"code": 400, "message": "API key not valid."}}]'),
            "does not take the key",
        ),
        (
            Fault(307, {"Location": "http://elsewhere/v1"}),
            "sends calls on to http://elsewhere/v1, which are not followed",
        ),
        (Fault(429, {"Retry-After": "86340"}), "asks to come again in 23 h 59 min"),
        (Fault(503, {"Retry-After": "inf"}), "asks to come again in more than a year"),
        (Fault(404), "knows no such call .* mend the `endpoint` .* or the `model`"),
    ],
)
def test_what_no_call_gets_past_stops_the_run_at_once(
    tmp_path: Path, fault: Fault, said: str
) -> None:
    with FakeTeacher(echo, fault=lambda call: fault) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        began = time.monotonic()
        with pytest.raises(TeacherError, match=said):
            together(teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(30)))
        assert time.monotonic() - began < 10
        assert len(server.calls) <= 8
        server.fault = lambda call: None
        assert together(teacher, lambda: ask(teacher, "3"))[0].text == "3 0"


def test_a_step_whose_few_calls_all_failed_is_not_done(tmp_path: Path) -> None:
    async def run() -> None:
        async with teacher:
            for number in range(3):
                with pytest.raises(Refused):
                    await ask(teacher, f"{number}")

    with FakeTeacher(echo, fault=lambda call: Fault(403)) as server, Journal(tmp_path / "j") as j:
        teacher = open_teacher(CONFIG, server.url, j)
        with pytest.raises(TeacherError, match=r"failed 3 of 3 calls for good .*403"):
            asyncio.run(run())


def test_a_call_that_does_not_fit_stops_no_run_that_is_answered(tmp_path: Path) -> None:
    def fault(call: Call) -> Fault | None:
        return Fault(400, text='{"error": "prompt is too long"}') if call.prompt == "1" else None

    async def run() -> None:
        async with teacher:
            await ask(teacher, "0")
            with pytest.raises(Refused, match="too long"):
                await ask(teacher, "1")

    with FakeTeacher(echo, fault=fault) as server, Journal(tmp_path / "j") as journal:
        for _ in range(2):
            teacher = open_teacher(CONFIG, server.url, journal)
            asyncio.run(run())


UNSUPPORTED = {
    "FastAPI's": lambda name: Fault(
        422,
        text=json.dumps(
            {"detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"}]}
        ),
    ),
    "OpenAI's": lambda name: Fault(
        400,
        text=json.dumps(
            {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this "
                       "model. Use 'max_completion_tokens' instead.", "param": name,
                       "code": "unsupported_parameter"}}
        ),
    ),
    "in words": lambda name: Fault(400, text=json.dumps({"message": f"unknown field `{name}`"})),
    "without a word": lambda name: Fault(400, text=json.dumps({"error": "bad request"})),
}  # fmt: skip


@pytest.mark.parametrize("name", ["seed", "max_tokens", "temperature"])
@pytest.mark.parametrize("words", UNSUPPORTED)
def test_a_parameter_that_a_server_does_not_take_is_given_up_once_and_aloud(
    tmp_path: Path, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(call: Call) -> Fault | None:
        return UNSUPPORTED[words](name) if name in call.body else None

    def answer(call: Call) -> str:
        return call.prompt

    with (
        FakeTeacher(answer, fault=fault) as server,
        Journal(tmp_path / "j") as journal,
        caplog.at_level(logging.WARNING),
    ):
        teacher = open_teacher(CONFIG, server.url, journal)
        key = teacher.key
        replies = together(teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(20)))
        assert [reply.text for reply in replies] == [f"{n}" for n in range(20)]
        assert len([r for r in caplog.records if f"does not take `{name}`" in r.message]) == 1
        last = server.calls[-1].body
        assert name not in last
        assert ("max_completion_tokens" in last) == (name == "max_tokens")
        assert server.served.most_common(1)[0][1] == 1
        assert all(entry.finish_reason != "refused" for entry in journal.answers())
        # What decides no answer is in no key; what decides one is, also when it was found out.
        assert (teacher.answers_key == key) == (name != "temperature")
        by_hand = {"max_tokens": "max_completion_tokens"}.get(name, False)
        config = CONFIG.model_copy(update={"parameters": {name: by_hand}})
        again = open_teacher(config, server.url, journal)
        num_calls = len(server.calls)
        assert together(again, lambda: ask(again, "3"))[0].cached
        assert len(server.calls) == num_calls


def test_a_trial_that_passes_by_tells_nothing_of_parameters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server does not take is the temperature; the first trial, without a seed, comes when
    it has too much to do."""
    num_busy = 0

    def fault(call: Call) -> Fault | None:
        nonlocal num_busy
        if "seed" not in call.body and num_busy == 0:
            num_busy += 1
            return Fault(429)
        return UNSUPPORTED["without a word"]("x") if "temperature" in call.body else None

    with FakeTeacher(lambda call: "yes", fault=fault) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        assert together(teacher, lambda: ask(teacher, "hi"))[0].text == "yes"
        assert "does not take `temperature`" in caplog.text
        assert "does not take `seed`" not in caplog.text
        assert "seed" in server.calls[-1].body


def test_a_later_run_finds_what_was_answered_without_a_parameter(tmp_path: Path) -> None:
    def fault(call: Call) -> Fault | None:
        return UNSUPPORTED["OpenAI's"]("temperature") if "temperature" in call.body else None

    with FakeTeacher(lambda call: "yes", fault=fault) as server, Journal(tmp_path / "j") as journal:
        for _ in range(2):
            teacher = open_teacher(CONFIG, server.url, journal)
            together(teacher, *(lambda n=n, t=teacher: ask(t, f"{n}") for n in range(5)))
        assert server.num_served == 5


def test_parameters_by_hand_are_sent_and_are_part_of_the_key(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"parameters": {"seed": False, "top_k": 20}})
    with FakeTeacher(lambda call: "yes") as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(config, server.url, journal)
        assert teacher.key == 'expert with {"top_k": 20}'
        together(teacher, lambda: ask(teacher, "hi"))
        body = server.calls[0].body
        assert body["top_k"] == 20
        assert "seed" not in body


def test_an_old_journal_is_found_again(tmp_path: Path) -> None:
    """The key of a call is what it has been since the first version."""
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG.model_copy(update={"revision": "2"}), server.url, journal)
        together(teacher, lambda: ask(teacher, "hi"))
        (entry,) = journal.answers()
    assert entry.key == ("d020645c843cca2e29e435efc36bddb20b3842b2bc6973a72a7bf1af2056436a")


def test_caps_hold_whatever_the_server_counts(tmp_path: Path) -> None:
    for number, name in enumerate(n for n in TOLERATED if "usage" in n):
        with FakeTeacher(echo, odd=TOLERATED[name]) as server:
            with Journal(tmp_path / f"{number}") as journal:
                budget = Budget(BudgetConfig(max_tokens=400))
                config = CONFIG.model_copy(update={"concurrency": 1})
                teacher = open_teacher(config, server.url, journal, budget=budget)
                questions = [f"{n} and so on, for a good long while" for n in range(100)]
                with pytest.raises(BudgetSpent):
                    together(
                        teacher,
                        *(lambda q=q, t=teacher: ask(t, q, max_tokens=30) for q in questions),
                    )
            assert 4 <= server.num_served <= 40, name
            assert budget.spent.tokens <= 400


def test_caps_hold_for_answers_that_are_paid_and_thrown_away(tmp_path: Path) -> None:
    with FakeTeacher(lambda call: "") as server, Journal(tmp_path / "j") as journal:
        budget = Budget(BudgetConfig(max_tokens=100))
        config = CONFIG.model_copy(update={"concurrency": 1})
        teacher = open_teacher(config, server.url, journal, budget=budget)
        with pytest.raises(BudgetSpent):
            together(teacher, lambda: ask(teacher, "a question of many words " * 4, max_tokens=30))
        assert server.num_served >= 1
        assert 0 < budget.spent.tokens <= 100


def test_half_a_character_in_an_answer_ends_nothing(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        return "half \ud83d" if call.prompt == "3" else "whole \U0001f600"

    with FakeTeacher(answer) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        replies = together(
            teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(8)),
            lambda: ask(teacher, "asked with half \ud83d"),
        )  # fmt: skip
        assert replies[3].text == "half \ufffd"
        assert {r.text for n, r in enumerate(replies) if n != 3} == {"whole \U0001f600"}
        assert len(list(journal.answers())) == 9


def test_a_pause_that_is_asked_for_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SAID_FROM_SECONDS", 0.5)

    def fault(call: Call) -> Fault | None:
        return Fault(429, {"Retry-After": "1"}) if call.attempt == 1 else None

    with FakeTeacher(echo, fault=fault) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        with caplog.at_level(logging.WARNING):
            together(teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(8)))
    (said,) = caplog.messages
    assert "429 as the test asked; waiting 1 s as it asks (try 1 of 4)" in said


def test_words_of_a_server_reach_no_terminal(tmp_path: Path) -> None:
    shout = Fault(403, text=json.dumps({"error": {"message": "\x1b]0;title\x07\x1b[31mred\nline"}}))
    with FakeTeacher(echo, fault=lambda call: shout) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(CONFIG, server.url, journal)
        with pytest.raises(Refused) as told:
            together(teacher, lambda: ask(teacher, "hi"))
    assert str(told.value).isprintable()


LEAF = Leaf(
    path="foundational_skills/sums",
    branch="foundational",
    task_description="Add two numbers.",
    seeds=tuple(
        Seed(id=f"s{n}", question=f"What is {n} + 1?", answer=f"{n} + 1 = {n + 1}.")
        for n in range(6)
    ),
)
ROWS = GenerateConfig(
    samples_per_seed=6, duplicates=False, near_duplicates=False, decontaminate=False
)


def generate(server: FakeTeacher, here: Path, config: TeacherConfig) -> list[Sample]:
    here.mkdir()
    with Journal(here / "journal") as journal:
        teacher = open_teacher(config, server.url, journal)
        return list(
            generate_samples(
                Workspace(folder=here),
                [LEAF],
                ROWS,
                teacher=teacher,
                judge=teacher,
                avoid=(),
                seed=1,
            )
        )


@pytest.mark.timeout(DEADLINE_SECONDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_run_through_all_of_it_keeps_the_clean_runs_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Kept rows are the clean run's less those truly refused, and nothing is paid for twice."""
    monkeypatch.setattr(transport, "MAX_BODY_BYTES", 1 << 20)
    seen: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    refused: set[str] = set()

    def odd(call: Call, reply: Reply) -> Reply | Fault:
        content = json.dumps(call.body, sort_keys=True)
        # Of the call alone, whatever its attempt: what is refused stays refused.
        dice = random.Random(f"{seed} {content}")
        if call.stage == "skill-answer" and dice.random() < 0.1:
            name = dice.choice(sorted(REFUSING))
            refused.add(call.section("Question"))
            return note(name)(call, reply)
        dice = random.Random(f"{seed} {call.attempt} {content}")
        if call.attempt < 4 and dice.random() < 0.5:
            return note(dice.choice(sorted(PASSING)))(call, reply)
        paid[content] += 1
        if dice.random() < 0.7:
            return note(dice.choice(sorted(TOLERATED)))(call, reply)
        return reply

    def note(name: str):
        seen[name] += 1
        return {**REFUSING, **PASSING, **TOLERATED}[name]

    with FakeTeacher() as server:
        clean = generate(server, tmp_path / "clean", CONFIG)
    patient = CONFIG.model_copy(
        update={"max_retries": 6, "failure_budget": 0.5, "timeout_seconds": 2.0}
    )
    with FakeTeacher(odd=odd) as server:
        rough = generate(server, tmp_path / "rough", patient)
    assert paid.most_common(1)[0][1] == 1
    assert len(seen) > 30
    assert refused
    expected = Counter((s.question, s.answer) for s in clean if s.is_kept)
    kept = Counter((s.question, s.answer) for s in rough if s.is_kept)
    lost = expected - kept
    assert not kept - expected
    assert {question for question, _ in lost} == refused & {q for q, _ in expected}
    for sample in rough:
        if not sample.is_kept and sample.question in refused:
            assert "refused (" in (sample.rejected_because or "")
