"""`feldspar serve` under 1, 16 and 64 clients, against the same answers one request at a time.

    python benchmarks/serving.py [--clients 1 16 64] [--requests 64] [--threads 2]

A Llama of 58 million random weights on the CPU in float32; prompts of 64 to 128 tokens, answers of
32 tokens, over HTTP. `transformers serve` 5.23 has one seed for all its clients, ignores
`n` and `logprobs`, and takes one request after another without --continuous-batching; its stand-in
here is `generate` called for one request after another, without any HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

import aiohttp
import torch
from sampling import VOCABULARY, make

from feldspar.config import ServeConfig
from feldspar.serve import ModelCard, listening, make_app
from feldspar.serve.hosted_model import open_engine
from feldspar.student.model import Student

ANSWER_TOKENS = 32


def prompts(num: int) -> list[list[int]]:
    rng = random.Random(1)
    return [
        [rng.randrange(VOCABULARY - 16) for _ in range(rng.randint(64, 128))] for _ in range(num)
    ]


async def serve(student: Student, asked: list[list[int]], num_clients: int) -> dict[str, Any]:
    waits: list[float] = []
    tokens = 0
    left = list(enumerate(asked))

    async def client(session: aiohttp.ClientSession, url: str) -> None:
        nonlocal tokens
        while left:
            number, ids = left.pop()
            body = {"model": "m", "prompt": ids, "max_tokens": ANSWER_TOKENS, "seed": number}
            began = time.perf_counter()
            async with session.post(f"{url}/completions", json=body) as response:
                tokens += (await response.json())["usage"]["completion_tokens"]
            waits.append(time.perf_counter() - began)

    async with open_engine(student, ServeConfig()) as engine:
        app = make_app([ModelCard("m")], draw=engine.draw)
        connector = aiohttp.TCPConnector(limit=0)
        async with listening(app) as url, aiohttp.ClientSession(connector=connector) as session:
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(client(session, url) for _ in range(num_clients)))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    waits.sort()
    return _line(f"{num_clients} clients", len(asked), tokens, wall, cpu) | {
        "median_wait_s": round(waits[len(waits) // 2], 2)
    }


def one_at_a_time(student: Student, asked: list[list[int]]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = 0
    for ids in asked:
        output = student.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=True,
            top_k=0,
        )
        tokens += output.shape[1] - len(ids)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return _line("generate, one at a time", len(asked), tokens, wall, cpu)


def _line(way: str, requests: int, tokens: int, wall: float, cpu: float) -> dict[str, Any]:
    return {
        "way": way,
        "requests": requests,
        "tokens": tokens,
        "requests_per_s": round(requests / wall, 2),
        "tokens_per_s": round(tokens / wall, 1),
        "tokens_per_cpu_s": round(tokens / cpu, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    student = make("float32")
    asked = prompts(arguments.requests)
    few = asked[: max(8, arguments.requests // 8)]
    print(json.dumps(one_at_a_time(student, few)), flush=True)
    for num_clients in arguments.clients:
        mine = few if num_clients == 1 else asked
        print(json.dumps(asyncio.run(serve(student, mine, num_clients))), flush=True)
    print(json.dumps(one_at_a_time(student, few)), flush=True)


if __name__ == "__main__":
    main()
