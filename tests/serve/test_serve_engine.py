"""A model of one's own behind the HTTP layer, asked by the official client and by rude ones."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
import torch
from tiny import COLOURS, make_tiny

from feldspar.config import ServeConfig
from feldspar.records import Message
from feldspar.serve import ModelCard, listening, make_app
from feldspar.serve.hosted_model import HostedModel, open_engine
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "what is red?"}]}


@pytest.fixture(scope="module")
def student() -> Student:
    return make_tiny()


@asynccontextmanager
async def serving(
    student: Student, key: str | None = None, **config: int
) -> AsyncIterator[tuple[str, HostedModel]]:
    async with open_engine(student, ServeConfig(**config)) as engine:
        app = make_app([ModelCard("tiny")], draw=engine.draw, key=key)
        async with listening(app) as url:
            yield url, engine


def ask(
    student: Student, use: Callable[[openai.AsyncOpenAI], Awaitable[Any]], **config: int
) -> Any:
    async def run() -> Any:
        async with (
            serving(student, **config) as (url, _),
            openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
        ):
            return await use(client)

    return asyncio.run(run())


def test_choices_usage_and_a_seed_that_knows_nothing_of_its_company(student: Student) -> None:
    async def use(client: openai.AsyncOpenAI) -> tuple[Any, Any, Any]:
        options = {"n": 3, "seed": 7, "max_tokens": 12, "temperature": 0.9, "top_p": 0.95}
        alone = await client.chat.completions.create(**ASK, **options)
        others = [
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": COLOURS[i % 4] * (i % 5 + 1)}],
                max_tokens=5 + i,
                seed=i,
            )
            for i in range(12)
        ]
        among, *_ = await asyncio.gather(client.chat.completions.create(**ASK, **options), *others)
        unseeded = await client.chat.completions.create(**ASK, **options | {"seed": None})
        return alone, among, unseeded

    alone, among, unseeded = ask(student, use)
    texts = [[c.message.content for c in reply.choices] for reply in (alone, among, unseeded)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert [c.index for c in alone.choices] == [0, 1, 2]
    prompt = student.template.render_prompt([Message(role="user", content="what is red?")])
    assert alone.usage.prompt_tokens == len(prompt)
    assert 3 <= alone.usage.completion_tokens <= 36
    assert all(c.finish_reason in ("stop", "length") for c in alone.choices)


def test_greedy_is_what_the_sampler_says_and_streams_say_it_too(student: Student) -> None:
    async def use(client: openai.AsyncOpenAI) -> tuple[Any, list[Any]]:
        options = {"temperature": 0, "max_tokens": 20}
        whole = await client.chat.completions.create(**ASK, **options)
        stream = await client.chat.completions.create(
            **ASK, **options, stream=True, stream_options={"include_usage": True}
        )
        return whole, [chunk async for chunk in stream]

    whole, chunks = ask(student, use)
    message = Message(role="user", content="what is red?")
    [[expected]] = sample_answers(student, [[message]], keys=["k"], max_new_tokens=20, seed=0)
    assert whole.choices[0].message.content == expected.text
    told = [c.choices[0] for c in chunks if c.choices]
    assert "".join(choice.delta.content or "" for choice in told) == expected.text
    assert told[0].delta.role == "assistant"
    assert [c.finish_reason for c in told if c.finish_reason] == ["length"]
    assert chunks[-1].usage == whole.usage
    assert len(told) > 3


def test_log_probabilities_are_the_models(student: Student) -> None:
    reply = ask(
        student,
        lambda client: client.chat.completions.create(
            **ASK, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2
        ),
    )
    scores = reply.choices[0].logprobs.content
    assert len(scores) == 5
    ids = student.template.render_prompt([Message(role="user", content="what is red?")])
    with torch.no_grad():
        first = student.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert scores[0].logprob == pytest.approx(first.max().item(), abs=1e-4)
    assert scores[0].top_logprobs[0].logprob == scores[0].logprob
    assert scores[0].top_logprobs[1].logprob == pytest.approx(first.topk(2)[0][1].item(), abs=1e-4)


def test_a_prompt_comes_back_with_its_log_probabilities(student: Student) -> None:
    ids = student.tokenizer("what is red? it is red.")["input_ids"]

    async def use(client: openai.AsyncOpenAI) -> tuple[Any, Any]:
        scored = await client.completions.create(
            model="tiny", prompt=[ids, ids[:4]], echo=True, max_tokens=0, logprobs=1
        )
        told = await client.completions.create(
            model="tiny", prompt="what is red?", echo=True, max_tokens=3, logprobs=0, temperature=0
        )
        return scored, told

    scored, told = ask(student, use)
    with torch.no_grad():
        log_probs = student.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [log_probs[i, token].item() for i, token in enumerate(ids[1:])]
    for choice, num in zip(scored.choices, (len(ids), 4), strict=True):
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected[: num - 1], abs=1e-4)
        tops = [max(top.values()) for top in choice.logprobs.top_logprobs[1:]]
        assert tops == pytest.approx(log_probs[: num - 1].max(-1)[0].tolist(), abs=1e-4)
    assert scored.usage.completion_tokens == 0
    assert told.choices[0].text.startswith("what is red?")
    assert told.usage.completion_tokens == 3


def test_stop_texts_end_an_answer_and_never_show(student: Student) -> None:
    async def use(client: openai.AsyncOpenAI) -> tuple[str, Any, str]:
        options = {"temperature": 0, "max_tokens": 20}
        free = await client.chat.completions.create(**ASK, **options)
        text = free.choices[0].message.content
        stop = text[6:9]
        cut = await client.chat.completions.create(**ASK, **options, stop=[stop])
        stream = await client.chat.completions.create(**ASK, **options, stop=[stop], stream=True)
        parts = [c.choices[0].delta.content or "" async for c in stream]
        return text, cut.choices[0], "".join(parts)

    text, cut, streamed = ask(student, use)
    assert cut.message.content == text[: text.find(text[6:9])] == streamed
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_tokens": 65}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "red " * 300}]}, openai.BadRequestError),
        (
            {"messages": [{"role": "user", "content": "r" * 243}], "max_tokens": 60},
            openai.BadRequestError,
        ),
        ({"top_p": 2}, openai.UnprocessableEntityError),
        ({"logprobs": True, "top_logprobs": 50}, openai.UnprocessableEntityError),
        ({"presence_penalty": 1}, openai.UnprocessableEntityError),
        ({"model": "gpt-9"}, openai.NotFoundError),
    ],
)
def test_what_cannot_be_is_refused(
    student: Student, change: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error):
        ask(student, lambda c: c.chat.completions.create(**{**ASK, **change}), max_tokens=64)


def test_without_the_key_nothing_is_told(student: Student) -> None:
    async def run() -> None:
        async with serving(student, key="secret") as (url, _):
            for key, is_right in (("wrong", False), ("secret", True)):
                async with openai.AsyncOpenAI(base_url=url, api_key=key) as client:
                    if is_right:
                        assert (await client.models.list()).data[0].id == "tiny"
                    else:
                        with pytest.raises(openai.AuthenticationError):
                            await client.models.list()

    asyncio.run(run())


@pytest.mark.slow
def test_too_many_requests_are_told_to_come_again(student: Student) -> None:
    async def run() -> None:
        async with (
            serving(student, max_requests=1) as (url, _),
            aiohttp.ClientSession() as session,
        ):
            body = ASK | {"stream": True, "max_tokens": 200}
            async with session.post(f"{url}/chat/completions", json=body) as first:
                await first.content.readany()
                async with session.post(f"{url}/chat/completions", json=ASK) as second:
                    assert second.status == 429
                    assert int(second.headers["Retry-After"]) >= 1
                    assert (await second.json())["error"]["code"] == "too_many_requests"
                await first.read()
            async with session.post(f"{url}/chat/completions", json=ASK | {"max_tokens": 2}) as now:
                assert now.status == 200

    asyncio.run(run())


async def _polite(session: aiohttp.ClientSession, url: str, number: int) -> str:
    body = ASK | {"max_tokens": 20, "seed": number, "temperature": 1.0}
    async with session.post(url, json=body) as response:
        assert response.status == 200
        text: str = (await response.json())["choices"][0]["message"]["content"]
        return text


async def _slow(session: aiohttp.ClientSession, url: str, number: int) -> str:
    body = ASK | {"max_tokens": 20, "seed": number, "temperature": 1.0, "stream": True}
    text = ""
    async with session.post(url, json=body) as response:
        async for line in response.content:
            await asyncio.sleep(0.005)
            if line.startswith(b"data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                text += delta.get("content", "")
    return text


async def _rude(session: aiohttp.ClientSession, url: str, number: int) -> None:
    body = ASK | {"max_tokens": 200, "n": 4, "stream": number % 2 == 0}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.15), session.post(url, json=body) as response:
            await response.content.readany()
            await asyncio.sleep(10)


@pytest.mark.slow
def test_sixty_four_clients_some_slow_some_rude(student: Student) -> None:
    async def run() -> tuple[list[str], list[str], int, int]:
        async with (
            serving(student) as (url, engine),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            chat = f"{url}/chat/completions"
            alone = [await _polite(session, chat, number) for number in range(3)]
            found = await asyncio.gather(
                *(_polite(session, chat, number % 3) for number in range(24)),
                *(_slow(session, chat, number % 3) for number in range(24)),
                *(_rude(session, chat, number) for number in range(16)),
            )
            for _ in range(100):
                if not engine.num_open and not engine.num_rows:
                    break
                await asyncio.sleep(0.05)
            return alone, found[:48], engine.num_open, engine.num_rows

    alone, found, num_open, num_rows = asyncio.run(run())
    assert found == [alone[number % 3] for number in range(24)] * 2
    assert (num_open, num_rows) == (0, 0), "those who hung up are still being answered"


def test_a_failing_engine_is_said_and_the_next_request_served(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> int:
        async with serving(student) as (url, engine), aiohttp.ClientSession() as session:
            chat = f"{url}/chat/completions"
            with monkeypatch.context() as patch:
                patch.setattr(engine._thread._engine, "step", _out_of_memory)
                async with session.post(chat, json=ASK) as response:
                    assert response.status == 500
                    assert "no room" in (await response.json())["error"]["message"]
            async with session.post(chat, json=ASK | {"max_tokens": 2}) as response:
                return response.status

    assert asyncio.run(run()) == 200


def _out_of_memory() -> None:
    raise RuntimeError("no room for it")


def test_nothing_is_lost_to_rounding(student: Student) -> None:
    """Chances of whole answers, told by the server, add up over the first token."""
    reply = ask(
        student,
        lambda client: client.completions.create(
            model="tiny", prompt="red", max_tokens=1, logprobs=20, temperature=0
        ),
    )
    assert 0 < sum(map(math.exp, reply.choices[0].logprobs.top_logprobs[0].values())) <= 1.0001


async def _post(url: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    "body",
    [
        # Each prompt comes back n times.
        {"prompt": [[1] * 30] * 128, "n": 128, "echo": True, "max_tokens": 0},
        {"prompt": [[1]] * 128, "n": 128, "max_tokens": 1},
        {"prompt": [[1] * 200] * 4, "echo": True, "max_tokens": 0, "logprobs": 20},
    ],
    ids=["echo", "answers", "logprobs"],
)
def test_all_work_of_a_request_together_has_a_limit(student: Student, body: Any) -> None:
    async def run() -> tuple[int, Any]:
        async with serving(student, max_request_tokens=12_000) as (url, _):
            return await _post(url, "/completions", {"model": "tiny"} | body)

    status, reply = asyncio.run(run())
    assert (status, reply["error"]["code"]) == (400, "request_too_large")
    assert "the limit of 12000" in reply["error"]["message"]


@pytest.mark.slow
def test_all_requests_together_have_a_limit_too(student: Student) -> None:
    async def run() -> tuple[list[int], int]:
        async with serving(student, max_request_tokens=256) as (url, engine):
            body = ASK | {"max_tokens": 200}
            statuses = await asyncio.gather(
                *(_post(url, "/chat/completions", body) for _ in range(20))
            )
            last, _ = await _post(url, "/chat/completions", body)
            assert engine.num_open == 0
            return [status for status, _ in statuses], last

    statuses, last = asyncio.run(run())
    assert set(statuses) == {200, 429}
    assert last == 200


def test_a_prompt_with_its_scores_is_given_up_when_its_client_goes(student: Student) -> None:
    async def run() -> float:
        async with serving(student) as (url, engine), aiohttp.ClientSession() as session:
            body = {"model": "tiny", "prompt": [[1] * 250] * 100, "echo": True, "max_tokens": 0}
            with contextlib.suppress(TimeoutError):
                async with (
                    asyncio.timeout(0.2),
                    session.post(f"{url}/completions", json=body | {"logprobs": 1}) as response,
                ):
                    await response.read()
            began = asyncio.get_running_loop().time()
            while engine.num_open:
                await asyncio.sleep(0.01)
            status, _ = await _post(url, "/chat/completions", ASK | {"max_tokens": 1})
            assert status == 200
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) < 10


def test_a_long_prompt_is_refused_while_others_are_served(student: Student) -> None:
    async def run() -> tuple[int, Any, float]:
        async with serving(student) as (url, _), aiohttp.ClientSession() as session:
            text = "red is " * 140_000
            long = asyncio.create_task(
                _post(url, "/completions", {"model": "tiny", "prompt": text})
            )
            slowest = 0.0
            loop = asyncio.get_running_loop()
            while not long.done():
                began = loop.time()
                async with session.get(url.removesuffix("/v1") + "/health") as response:
                    assert response.status == 200
                slowest = max(slowest, loop.time() - began)
            return *long.result(), slowest

    status, reply, slowest = asyncio.run(run())
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    assert slowest < 5


def test_a_conversation_that_ends_with_the_assistant_is_400_with_the_reason(
    student: Student,
) -> None:
    async def run() -> tuple[int, Any]:
        said = [*ASK["messages"], {"role": "assistant", "content": "It is"}]
        async with serving(student) as (url, _):
            return await _post(url, "/chat/completions", ASK | {"messages": said})

    status, reply = asyncio.run(run())
    assert status == 400
    assert reply["error"]["message"].startswith("the last message is the assistant's")


def test_answers_share_the_memory_and_not_the_context(student: Student) -> None:
    """Eight of sixty tokens do not fit into one context, and need not."""

    async def use(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(**ASK, n=8, max_tokens=60, temperature=1)

    assert len(ask(student, use, max_tokens=64).choices) == 8
