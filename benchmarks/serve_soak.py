"""`feldspar serve` under mixed hostile load on 127.0.0.1: memory stays flat and everyone is served.

    python benchmarks/serve_soak.py [--seconds 1200] [--clients 16] [--seed 1]

A process serves a Llama of 0.1 million random weights; the clients are here. Each client draws one
of the kinds of request below after another: polite ones, whose answers are checked, and hostile
ones, which may only get an error as JSON, or a closed connection. The server's resident memory is
read once a second; its growth is the mean of the last fifth less that of the second fifth. Bounded
by `--seconds`, `--clients` and 200,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MOST_REQUESTS = 200_000
LATE_SECONDS = 60.0
JSON = {"Content-Type": "application/json"}
Client = tuple[aiohttp.ClientSession, str, str, random.Random]
"""Session, URL of the server, name of the model, and what decides the rest."""


def chat(model: str, **fields: object) -> dict[str, object]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "the quick brown fox"}],
        "max_tokens": 8,
        **fields,
    }


async def post(client: Client, path: str, body: object, headers: Any = JSON) -> int:
    session, url, _, _ = client
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    stream = asyncio.StreamReader(1 << 23)
    stream.feed_data(data)
    stream.feed_eof()
    async with session.post(f"{url}/v1{path}", data=stream, headers=headers) as response:
        got = await response.read()
        if response.content_type == "application/json":
            assert ("error" in json.loads(got)) == (response.status >= 400), got
        else:
            assert response.content_type == "text/event-stream", response.content_type
        return response.status


async def polite(client: Client) -> None:
    status = await post(client, "/chat/completions", chat(client[2], n=client[3].randint(1, 4)))
    assert status in (200, 429), status


async def streaming(client: Client) -> None:
    assert await post(client, "/chat/completions", chat(client[2], stream=True)) in (200, 429)


async def scoring(client: Client) -> None:
    body = {"model": client[2], "prompt": "a b c d e f", "echo": True, "logprobs": 2}
    assert await post(client, "/completions", {**body, "max_tokens": 0}) in (200, 429)


async def echo_many(client: Client) -> None:
    body = {"model": client[2], "prompt": ["a b c d " * 40] * 128, "n": 128, "echo": True}
    assert await post(client, "/completions", {**body, "max_tokens": 1}) in (400, 429)


async def long_prompt(client: Client) -> None:
    body = {"model": client[2], "prompt": "a b " * 900_000}
    assert await post(client, "/completions", body) in (400, 429)


async def hangs_up(client: Client) -> None:
    body = chat(client[2], max_tokens=400, n=8, stream=client[3].random() < 0.5)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(client[3].uniform(0.01, 0.5)):
            await post(client, "/chat/completions", body)


async def other_page(client: Client) -> None:
    headers = client[3].choice(
        [JSON | {"Origin": "https://evil.example"}, JSON | {"Host": "evil.example"}]
    )
    assert await post(client, "/chat/completions", chat(client[2]), headers) == 403


async def form(client: Client) -> None:
    headers = {"Content-Type": "text/plain"}
    assert await post(client, "/chat/completions", chat(client[2]), headers) == 415


async def odd_fields(client: Client) -> None:
    odd: list[dict[str, object]] = [
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"n": 10**30},
        {"temperature": float("nan")},
        {"tools": [{}]},
        {"max_tokens": 10**9},
        {"messages": [{"role": "user", "content": "x"}] * 2000},
        {"model": "x" * 100_000},
    ]
    body = chat(client[2]) | client[3].choice(odd)
    assert await post(client, "/chat/completions", body) in (400, 404, 422, 429)


async def odd_bytes(client: Client) -> None:
    body = client[3].choice([b"[" * 100_000, b"\xff" * 100, b"{", b'{"a": ' + b"9" * 6000 + b"}"])
    assert await post(client, "/chat/completions", body) == 400


async def new_stages(client: Client) -> None:
    headers = JSON | {"X-Feldspar-Stage": f"{client[3].random()}" * 20}
    assert await post(client, "/chat/completions", chat(client[2]), headers) in (200, 429)


async def raw(client: Client) -> None:
    """Bytes that are no request, or the half of one; then silence."""
    port = int(client[1].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    half = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{"
    writer.write(client[3].choice([b"\x00" * 500, b"GET / HTTP/9\r\n\r\n", half, b"POST"]))
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.3):
            await reader.read(200)
    writer.close()


KINDS: dict[Callable[[Client], Awaitable[None]], int] = {
    polite: 6,
    streaming: 3,
    scoring: 2,
    echo_many: 2,
    long_prompt: 1,
    hangs_up: 4,
    other_page: 2,
    form: 1,
    odd_fields: 3,
    odd_bytes: 2,
    new_stages: 2,
    raw: 3,
}
"""How often each is drawn."""


async def load(url: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    ends = time.monotonic() + options.seconds
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    slowest = 0.0

    async def one(number: int) -> None:
        nonlocal slowest
        rng = random.Random(f"{options.seed} {number}")
        while time.monotonic() < ends and counts.total() < MOST_REQUESTS:
            (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
            counts[kind.__name__] += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(LATE_SECONDS):
                    await kind((session, url, model, rng))
            except Exception as error:
                faults[f"{kind.__name__}: {type(error).__name__} {str(error)[:80]}"] += 1
            if kind is polite:
                slowest = max(slowest, time.monotonic() - began)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(number) for number in range(options.clients)))
        async with session.get(f"{url}/health") as response:
            assert response.status == 200
    return {"requests": dict(counts), "faults": dict(faults), "slowest_polite_s": round(slowest, 1)}


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def save_model(folder: Path) -> None:
    """A Llama of random weights whose tokens are bytes."""
    torch.manual_seed(0)
    words = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words |= {"<end>": 256, "<pad>": 257}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}>{{ m.content }}<end>"
        "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, str, int]]:
    save_model(folder)
    command = [sys.executable, "-m", "feldspar.cli.main", "serve", str(folder), "--port", "0"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first, (folder / "log").read_text()
            told = json.loads(first)
            yield told["url"].removesuffix("/v1"), told["model"], process.pid
            assert process.poll() is None, "the server has ended"
        finally:
            process.terminate()
            process.wait(60)


async def measured(url: str, model: str, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(resident_mib(pid))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    found = await load(url, model, options)
    watching.cancel()
    fifth = max(1, len(memory) // 5)
    early, late = memory[fifth : 2 * fifth], memory[-fifth:]
    found["memory_mib"] = {
        "first": round(memory[0]),
        "peak": round(max(memory)),
        "last": round(memory[-1]),
        "growth": round(sum(late) / len(late) - sum(early) / max(1, len(early)), 1),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder) as (url, model, pid):
            found = asyncio.run(measured(url, model, pid, options))
        said = (folder / "log").read_text()
    found["tracebacks"] = said.count("Traceback")
    found["log"] = said.splitlines()[:10]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
