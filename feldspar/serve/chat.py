"""Talking to a run's result: history, answers as they come, the base beside, what taught it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from feldspar.config import Recipe
from feldspar.records import Leaf, Message, Sample, Seed
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import Engine, Request
from feldspar.student.model import base_checkpoint, load_to_answer
from feldspar.text import SimilarTexts

NUM_NEAREST = 3


class Nearest(NamedTuple):
    """A training sample, how like the question and answer it is, and the seeds it was made from."""

    sample: Sample
    likeness: float
    """ROUGE-L, 0 to 1."""
    seeds: list[Seed]


class Partner:
    """One model in a conversation, with what was said so far."""

    def __init__(self, path: str, recipe: Recipe, name: str) -> None:
        self.name = name
        self._student = load_to_answer(path, recipe.student)
        self._engine = Engine(self._student)
        self.history: list[Message] = []

    def answer(self, text: str, max_tokens: int, temperature: float) -> Generator[str, None, None]:
        """Say `text`; the answer comes as the whole of it so far, again and again.

        What was said is remembered also where the caller stops listening.
        """
        self.history.append(Message(role="user", content=text))
        said = ""
        request = self._request(self.history, max_tokens, temperature, is_watched=True)
        try:
            with closing(self._engine.run([request])) as rows:
                for row in rows:
                    said = row.text[: row.settled]
                    yield said
        finally:
            self.history.append(Message(role="assistant", content=said))

    def answer_apart(
        self, questions: Sequence[str], system_prompt: str, max_tokens: int, temperature: float
    ) -> list[str]:
        """Answers to questions each of which begins a conversation of its own, drawn at once."""
        talks = [
            [*_begun(system_prompt), Message(role="user", content=question)]
            for question in questions
        ]
        requests = [self._request(talk, max_tokens, temperature) for talk in talks]
        said = {id(row.request): row.text for row in self._engine.run(requests) if row.finish}
        return [said[id(request)] for request in requests]

    def forget(self, system_prompt: str = "") -> None:
        """Begin a new conversation."""
        self.history[:] = _begun(system_prompt)

    def _request(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        temperature: float,
        *,
        is_watched: bool = False,
    ) -> Request:
        return Request(
            ids=self._student.template.render_prompt(messages),
            keys=(key_of("chat", len(messages)),),
            max_new_tokens=max_tokens,
            temperature=temperature,
            is_watched=is_watched,
        )


def _begun(system_prompt: str) -> list[Message]:
    """A conversation in which nothing was said yet."""
    return [Message(role="system", content=system_prompt)] if system_prompt else []


class Conversationalist:
    """A run's result, its base where it is wanted beside, and the samples that taught it."""

    def __init__(self, run_path: Path, max_tokens: int, temperature: float) -> None:
        self._run_path = run_path
        self._recipe = read_recipe_of(run_path)
        checkpoint = result_of(run_path)
        self.max_tokens, self.temperature = max_tokens, temperature
        name = f"{run_path.name}, {checkpoint.phase}, step {checkpoint.step}"
        self.result = Partner(checkpoint.path, self._recipe, name)
        self.base: Partner | None = None
        self._system_prompt = ""
        self._samples: dict[str, Sample] = {}
        self._likeness: SimilarTexts | None = None

    @property
    def name(self) -> str:
        return self.result.name

    def bring_base(self) -> None:
        """Load the base; it hears what is said from now on."""
        path = base_checkpoint(self._recipe.student.base).path
        self.base = Partner(path, self._recipe, f"base: {Path(self._recipe.student.base).name}")
        self.base.forget(self._system_prompt)

    def forget(self) -> None:
        """Begin a new conversation under the same system prompt."""
        for partner in filter(None, (self.result, self.base)):
            partner.forget(self._system_prompt)

    def instruct(self, system_prompt: str) -> None:
        """Begin a new conversation with another system prompt; empty for the recipe's own."""
        self._system_prompt = system_prompt
        self.forget()

    def answer(self, text: str) -> str:
        """The whole of the result's answer."""
        *_, said = self.result.answer(text, self.max_tokens, self.temperature)
        return said

    def answers_apart(
        self, questions: Sequence[str], max_tokens: int
    ) -> list[tuple[str, str | None]]:
        """The result's answer and the base's, where it is beside, to questions that each begin a
        conversation of their own: what was said before is neither heard nor forgotten."""
        asked = (questions, self._system_prompt, max_tokens, self.temperature)
        ours = self.result.answer_apart(*asked)
        if self.base is None:
            return [(said, None) for said in ours]
        return list(zip(ours, self.base.answer_apart(*asked), strict=True))

    def answers(self, text: str) -> Generator[tuple[str, str | None], None, None]:
        """The result's answer so far and the base's, where it is beside, until both have ended."""
        partners = [p for p in (self.result, self.base) if p is not None]
        streams = [p.answer(text, self.max_tokens, self.temperature) for p in partners]
        said = [""] * len(streams)
        open_streams = dict(enumerate(streams))
        try:
            while open_streams:
                for place, stream in list(open_streams.items()):
                    try:
                        said[place] = next(stream)
                    except StopIteration:
                        del open_streams[place]
                yield said[0], said[1] if len(said) > 1 else None
        finally:
            for stream in streams:
                stream.close()

    def why(self) -> list[Nearest]:
        """The training samples most like what was said last; none before anything was said."""
        turns = [m.content for m in self.result.history if m.role != "system"][-2:]
        if not turns:
            return []
        index = self._index()
        seeds = {
            seed.id: seed
            for leaf in open_step(self._run_path, "leaves") or ()
            if isinstance(leaf, Leaf)
            for seed in leaf.seeds
        }
        found = []
        for match in index.nearest("\n".join(turns), NUM_NEAREST):
            sample = self._samples[match.key]
            shown = [seeds[seed] for seed in sample.seeds if seed in seeds]
            found.append(Nearest(sample, match.score, shown))
        return found

    def _index(self) -> SimilarTexts:
        if self._likeness is None:
            self._likeness = SimilarTexts()
            for sample in open_step(self._run_path, "samples") or ():
                assert isinstance(sample, Sample)
                if sample.is_kept:
                    self._samples[sample.id] = sample
                    self._likeness.add(sample.id, f"{sample.question}\n{sample.answer}")
        return self._likeness
