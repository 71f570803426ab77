"""Answers drawn by a server, journalled prompt by prompt.

    FOLDER/00003.answers.jsonl    replies to shard 3's prompts, a line each, until the shard is done

Text is put into turns and tokens here and sent as ids, as for a policy that is computed here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feldspar.config import PreferConfig, StudentConfig, TeacherConfig
from feldspar.endpoint.calls import Completion, PromptCall
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.errors import TrainingError
from feldspar.models.launched import LaunchedModel
from feldspar.models.opening import access_of
from feldspar.models.server import Start
from feldspar.records import Message
from feldspar.stored import reading
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.sample import Sampled
from feldspar.student.model import load_template

MAX_CHOICES = 128
"""Answers asked for in one request."""
SEED_BITS = 31
"""Servers differ in how large a seed they take."""
_KEPT = "then run again: what there is so far is kept"


@contextmanager
def launched_policy(
    config: TeacherConfig, model_path: str, log_path: Path
) -> Iterator[LaunchedModel]:
    """The recipe's command for a model folder, begun with the first draw and ended with the block;
    what it says goes to `log_path`."""
    assert config.command is not None
    start = Start(
        command=config.command,
        model=model_path,
        called=config.model,
        num_replicas=config.replicas,
        engine=config.engine or "local",
        gpus_each=config.gpus_each,
        nodes_each=config.nodes_each,
        seconds=config.start_seconds,
        log_folder=log_path.parent,
        log_name=log_path.stem,
        cure=f"mend prefer.policy_server, {_KEPT}",
    )
    model = LaunchedModel(start, access_of(config))
    try:
        yield model
    finally:
        model.close()


class ServedPolicy:
    """One round's policy behind a server. Not to be used after the server has ended."""

    def __init__(
        self,
        model: LaunchedModel,
        model_path: str,
        num_answers: int,
        config: PreferConfig,
        student: StudentConfig,
    ) -> None:
        self._model = model
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
        # A prompt is done before the next one is begun, also where it takes several requests.
        room = asyncio.Semaphore(self._model.max_concurrency)

        async def answer(messages: Sequence[Message], key: tuple[str, int]) -> list[Sampled]:
            async with room:
                return await self._answer(messages, key, journal)

        async with self._model:
            answering = [
                asyncio.ensure_future(answer(messages, key))
                for messages, key in zip(prompts, keys, strict=True)
            ]
            try:
                return await asyncio.gather(*answering)
            except NoAnswers as error:
                raise TrainingError(error.sentence("server")) from error
            finally:
                for one in answering:
                    one.cancel()
                await asyncio.gather(*answering, return_exceptions=True)

    async def _answer(
        self, messages: Sequence[Message], key: tuple[str, int], journal: _Journal
    ) -> list[Sampled]:
        ids = self._template.render_prompt(messages)
        # A server may give fewer answers than it is asked for: then for the rest, as another draw.
        while len(journal.told[key[0]]) < self._num_answers:
            had = len(journal.told[key[0]])
            wanted = min(MAX_CHOICES, self._num_answers - had)
            request_seed = key_of(key[1], key[0], had) >> (64 - SEED_BITS)
            journal.add(key[0], await self._ask(ids, wanted, request_seed))
        return [self._sampled(messages, choice) for choice in journal.told[key[0]]]

    async def _ask(self, ids: list[int], wanted: int, seed: int) -> Sequence[Completion]:
        call = PromptCall(
            prompt=ids,
            max_tokens=self._config.max_new_tokens,
            temperature=self._config.temperature,
            seed=seed,
            num_choices=wanted,
        )
        try:
            return (await self._model.complete(call)).choices
        except Refused as error:
            if error.gave_up:
                raise TrainingError(
                    f"the server {self._model.place} does not answer ({error.reason}); see "
                    f"{self._model.log_folder}, {_KEPT}"
                ) from error
            raise TrainingError(
                f"the server {self._model.place} refuses {wanted} answers of "
                f"{self._config.max_new_tokens} tokens to a prompt of {len(ids)} ({error.reason}); "
                "lower prefer.num_answers or prefer.max_new_tokens, or raise the server's limits"
            ) from error

    def _sampled(self, messages: Sequence[Message], choice: Completion) -> Sampled:
        """Its tokens are counted as they would be trained on."""
        text, ended = self._template.without_frame(choice.text), choice.finish_reason == "stop"
        return Sampled(text, ended, len(self._template.render_answer(messages, text, ended=ended)))


class _Journal:
    """Answers by key, each reply on disk before it counts. A line that was cut off is none."""

    def __init__(self, path: Path) -> None:
        self.told: defaultdict[str, list[Completion]] = defaultdict(list)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        with reading(path):
            for line in whole:
                row = json.loads(line)
                self.told[row["key"]] += [Completion(*choice) for choice in row["choices"]]
        self._file = path.open("ab")
        self._file.truncate(sum(map(len, whole)))

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, choices: Sequence[Completion]) -> None:
        row = json.dumps({"key": key, "choices": choices}, ensure_ascii=False)
        self._file.write(row.encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.told[key] += choices
