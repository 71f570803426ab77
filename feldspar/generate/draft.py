"""What is asked for, and what comes of it: a request for samples, a draft, and why it may end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from feldspar.config import Rendering
from feldspar.generate.borrowed import POOLED_TASK
from feldspar.records import Chunk, Judgment, Leaf, Sample, SampleKind, Seed

RequestKind = SampleKind | Literal["focal"]
"""What a request is for. `focal`: the texts that answer a call's questions, as documents."""


def number_passages(texts: Iterable[str]) -> str:
    """Texts below each other as `Passage 1:`, `Passage 2:`, ..."""
    numbered = (f"Passage {number}:\n{text}" for number, text in enumerate(texts, start=1))
    return "\n\n".join(numbered)


class Rejected(Exception):
    """A sample ends, for a reason of the form `stage: reason (detail)`.

    `reply` is the text that could not be read, where that is the reason.
    """

    def __init__(self, reason: str, reply: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One call for new samples: a leaf, the seeds shown, and the draw; a chunk for knowledge."""

    leaf: Leaf
    seeds: tuple[Seed, ...]
    count: int
    """Samples asked for."""
    draw: int
    chunk: Chunk | None = None
    rendering: Rendering | None = None
    """Form of the chunk that is asked about; None for the chunk itself."""
    kind: RequestKind = "pair"
    others: tuple[Chunk, ...] = ()
    """Chunks beside its own: those that a retrieval sample shows, or the second that a question
    across passages takes."""
    statements: tuple[str, ...] = ()
    """Sentences of the chunk that are to be asked about; empty where any may be."""
    is_pooled: bool = False
    """Whether the seeds shown are from anywhere."""

    @property
    def key(self) -> str:
        """Tells it from every other request of a run."""
        chunk_id = self.chunk.id if self.chunk else ""
        place = (self.leaf.path, self.draw, chunk_id, self.rendering, self.kind)
        return repr((*place, self.statements) if self.statements else place)

    @property
    def passage(self) -> str:
        """The text that a knowledge sample is asked about and judged by."""
        assert self.chunk is not None, self
        if self.kind == "across":
            return number_passages(chunk.text for chunk in (self.chunk, *self.others))
        return self.chunk.text

    @property
    def task(self) -> str:
        """What the prompts call the leaf."""
        if self.is_pooled:
            return POOLED_TASK
        return self.leaf.task_description or self.leaf.path.rsplit("/", 1)[-1].replace("_", " ")


@dataclass(slots=True, kw_only=True)
class Draft:
    """A sample in the making."""

    request: SampleRequest
    index: int
    """Its place among the samples of one call."""
    question: str = ""
    answer: str = ""
    context: str | None = None
    judgments: list[Judgment] = field(default_factory=list)

    def finish(self, teacher_key: str, rejected_because: str | None) -> Sample:
        leaf, chunk = self.request.leaf, self.request.chunk
        chunk_id = chunk.id if chunk else None
        place = (leaf.path, self.request.draw, self.index, chunk_id)
        content: tuple[object, ...] = (*place, self.question, self.answer, self.context)
        # Samples of different kinds, or of two renderings, may say the same.
        wanted, form = self.request.kind, self.request.rendering
        if wanted != "pair" or form:
            content = (*content, wanted, form)
        if self.request.statements:
            # Calls for different statements of a chunk may both have failed.
            content = (*content, self.request.statements)
        return Sample(
            id=hashlib.sha256(repr(content).encode()).hexdigest()[:16],
            leaf=leaf.path,
            branch=leaf.branch,
            question=self.question,
            answer=self.answer,
            context=self.context,
            chunk=chunk_id,
            seeds=tuple(seed.id for seed in self.request.seeds),
            teacher=teacher_key,
            draw=self.request.draw,
            judgments=tuple(self.judgments),
            rejected_because=rejected_because,
            kind="document" if wanted == "focal" else wanted,
            rendering="focal" if wanted == "focal" else form or "",
        )
