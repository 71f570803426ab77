"""Answers drawn by a server, journalled prompt by prompt.

    FOLDER/00003.answers.jsonl    replies to shard 3's prompts, a line each, until the shard is done

Text is put into turns and tokens here and sent as ids, as for a policy that is computed here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from feldspar.config import PreferConfig, StudentConfig
from feldspar.endpoint.faults import Refused
from feldspar.errors import TrainingError
from feldspar.prefer.asking import NoAnswer, persist, post
from feldspar.prefer.launched_server import Asking, StartedServer
from feldspar.records import Message
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.sample import Sampled
from feldspar.student.model import load_template

MAX_CHOICES = 128
"""Answers asked for in one request."""
SEED_BITS = 31
"""Servers differ in how large a seed they take."""


class _Choice(NamedTuple):
    text: str
    reason: str
    """Why it ended: `stop`, or `length` and whatever else a server says."""


class ServedPolicy:
    """One round's policy behind a server. Not to be used after the server has ended."""

    def __init__(
        self,
        server: StartedServer,
        model_path: str,
        num_answers: int,
        config: PreferConfig,
        student: StudentConfig,
    ) -> None:
        self._server = server
        self._num_answers, self._config = num_answers, config
        self._template = load_template(model_path, student)

    def draw(
        self,
        prompts: Sequence[Sequence[Message]],
        keys: Sequence[str],
        seed: int,
        journal_path: Path,
    ) -> list[list[Sampled]]:
        """Answers to each prompt, in the prompts' order; those in the journal are not asked for.

        Each request's seed is a function of (seed, key, answers there were before it). Raises
        TrainingError where the server ends, stays away, or will not answer.
        """
        with _Journal(journal_path) as journal:
            return asyncio.run(self._draw(prompts, [(key, seed) for key in keys], journal))

    async def _draw(
        self,
        prompts: Sequence[Sequence[Message]],
        keys: Sequence[tuple[str, int]],
        journal: _Journal,
    ) -> list[list[Sampled]]:
        room = asyncio.Semaphore(self._server.config.concurrency)
        async with self._server.asking() as asking:

            async def answer(messages: Sequence[Message], key: tuple[str, int]) -> list[Sampled]:
                async with room:
                    return await self._answer(asking, messages, key, journal)

            answering = [
                asyncio.ensure_future(answer(messages, key))
                for messages, key in zip(prompts, keys, strict=True)
            ]
            try:
                return await self._server.watched(asyncio.gather(*answering))
            finally:
                for one in answering:
                    one.cancel()
                await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(
        self,
        asking: Asking,
        messages: Sequence[Message],
        key: tuple[str, int],
        journal: _Journal,
    ) -> list[Sampled]:
        ids = self._template.render_prompt(messages)
        # A server may give fewer answers than it is asked for: then for the rest, as another draw.
        while len(journal.told[key[0]]) < self._num_answers:
            had = len(journal.told[key[0]])
            wanted = min(MAX_CHOICES, self._num_answers - had)
            request_seed = key_of(key[1], key[0], had) >> (64 - SEED_BITS)
            reply = await self._ask(asking, ids, wanted, request_seed)
            journal.add(key[0], self._read(reply)[:wanted])
        return [self._sampled(messages, choice) for choice in journal.told[key[0]]]

    async def _ask(self, asking: Asking, ids: list[int], wanted: int, seed: int) -> object:
        body: dict[str, object] = {
            "model": asking.model,
            "prompt": ids,
            "n": wanted,
            "seed": seed,
            "temperature": self._config.temperature,
            "top_p": 1.0,
            "max_tokens": self._config.max_new_tokens,
        }
        try:
            tries = self._server.config.max_retries + 1
            return await persist(self._server, tries, lambda: post(asking.client, body))
        except NoAnswer as error:
            raise await self._server.gone(error.reason) from error
        except Refused as error:
            raise TrainingError(
                f"the server of {self._server.model} refuses {wanted} answers of "
                f"{self._config.max_new_tokens} tokens to a prompt of {len(ids)} ({error.reason}); "
                "lower prefer.num_answers or prefer.max_new_tokens, or raise the server's limits"
            ) from error

    def _read(self, reply: object) -> list[_Choice]:
        choices = reply.get("choices") if isinstance(reply, dict) else None
        rows = (
            [row for row in choices if isinstance(row, dict)] if isinstance(choices, list) else []
        )
        found = [
            _Choice(row["text"], str(row.get("finish_reason")))
            for row in sorted(rows, key=lambda row: int(row.get("index") or 0))
            if isinstance(row.get("text"), str)
        ]
        if not found:
            raise TrainingError(
                f"the server of {self._server.model} replied without an answer; see "
                f"{self._server.log_path}, then run again: what there is so far is kept"
            )
        return found

    def _sampled(self, messages: Sequence[Message], choice: _Choice) -> Sampled:
        """Its tokens are counted as they would be trained on."""
        text, ended = self._template.without_lead(choice.text), choice.reason == "stop"
        return Sampled(text, ended, len(self._template.render_answer(messages, text, ended=ended)))


class _Journal:
    """Answers by key, each reply on disk before it counts. A line that was cut off is none."""

    def __init__(self, path: Path) -> None:
        self.told: defaultdict[str, list[_Choice]] = defaultdict(list)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        for line in whole:
            row = json.loads(line)
            self.told[row["key"]] += [_Choice(*choice) for choice in row["choices"]]
        self._file = path.open("ab")
        self._file.truncate(sum(map(len, whole)))

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, choices: list[_Choice]) -> None:
        row = json.dumps({"key": key, "choices": choices}, ensure_ascii=False)
        self._file.write(row.encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.told[key] += choices
