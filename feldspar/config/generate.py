"""What a recipe may say about the samples that are asked for, and what is thrown away."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.config.base import (
    Count,
    OptionalPath,
    Part,
    PathText,
    Positive,
    SampleCount,
    SmallCount,
    Temperature,
)
from feldspar.records import SampleKind

Rendering = Literal["summary", "facts", "study"]
Criterion = Literal["fit", "answer", "faithful", "relevant"]


class BudgetConfig(Part):
    """Caps on exams and samples together, which one command never passes. At a cap the run goes on
    with what is kept, and says so. Answers out of the journal count as when they were paid."""

    max_calls: Count | None = None
    max_tokens: Count | None = None
    """Prompt and completion tokens together."""
    max_cost: Positive | None = None
    """In the currency of `teacher.prompt_price` and the other prices."""

    @property
    def is_capped(self) -> bool:
        return not (self.max_calls is self.max_tokens is self.max_cost is None)


class PipelineConfig(Part):
    """A pipeline of your own for some leaves: an `async` function in a Python file of yours, which
    is run with your rights. docs/generation.md has an example."""

    file: PathText
    """Its content counts in the key of the steps that ask."""
    function: str
    """`async def NAME(request: SampleRequest, writers: Writers) -> list[Sample]`."""
    leaves: Annotated[tuple[str, ...], Field(min_length=1)]
    """Branches or leaves by path: `compositional_skills/writing`. The longest one counts."""
    calls: Count = 1
    """Calls that it makes for one sample that nothing rejects: for `feldspar plan` alone."""


class KnowledgeConfig(Part):
    """What knowledge leaves are asked for beyond pairs about their chunks."""

    renderings: tuple[Rendering, ...] = ()
    """Forms that the teacher puts each chunk into, once: a `summary`, its atomic `facts`, `study`
    notes. Each is asked about as the chunk is, with `calls_per_chunk` calls, and what comes of it
    is judged against the chunk."""
    kinds: Annotated[tuple[SampleKind, ...], Field(min_length=1)] = ("pair",)
    """`pair`: question and answer. `document`: each chunk's text, all of it trained on.
    `retrieval`: pairs with their chunk shown among others; no call is made for them where `pair`
    is there too."""
    num_distractors: SmallCount = 3
    """Other chunks that a retrieval sample shows."""
    distractors: Literal["leaf", "taxonomy"] = "taxonomy"
    """Where they are from: the leaf alone, or half of them from other leaves."""


class GenerateConfig(Part):
    """How many samples to ask for, how, and what is thrown away."""

    samples_per_leaf: SampleCount | None = None
    """Samples to ask for in each skill leaf. None: `samples_per_seed` times its seeds."""
    samples_per_seed: SampleCount = 10
    """Samples to ask for per seed of a skill leaf, where `samples_per_leaf` is not given."""
    target: SampleCount | None = None
    """Accepted samples wanted in each leaf: asked on for until there are so many, or until so few
    are accepted that there never will be. Takes the place of `samples_per_leaf`,
    `samples_per_seed` and `calls_per_chunk`."""
    budget: BudgetConfig = BudgetConfig()
    pairs_per_call: SmallCount = 4
    """Questions asked for in one call."""
    calls_per_chunk: SmallCount = 4
    """Calls for question-answer pairs on each chunk of a knowledge leaf."""
    seeds_per_prompt: SmallCount = 3
    """Seeds of the leaf shown in one prompt."""
    sampling: Literal["leaf", "pooled"] = "leaf"
    """Whose seeds a skill's prompt shows: the leaf's, or one of the leaf's and the others from
    anywhere in the taxonomy, as self-instruct does; for comparison."""
    knowledge: KnowledgeConfig = KnowledgeConfig()
    temperature: Temperature = 0.7
    """Sampling temperature of questions and answers; judges use 0."""
    max_tokens: Count = 1024
    """Room for one reply."""
    min_rating: Annotated[int, Field(ge=1, le=3)] = 2
    """Lowest rating, of 1 to 3, that a judged pair is kept with."""
    judge: bool = True
    """False keeps what was not judged: to see what judging is worth."""
    judge_skips: tuple[Criterion, ...] = ()
    """Criteria that samples are not judged by: to see what each is worth. Exams are by all."""
    judge_floor: Annotated[float | None, Field(ge=0, le=1)] = None
    """Stop before anything is generated when the judge's precision or recall on known pairs is
    lower by any criterion (`feldspar calibrate` shows them). None asks for no such trial."""
    duplicates: bool = True
    """Drop what a leaf has already: same question and answer, on the same input."""
    near_duplicates: bool = True
    """Drop near-duplicates within a leaf and against its seeds; needs `duplicates`."""
    language: bool = True
    """Drop questions and answers in a language that none of the leaf's seeds has."""
    min_answer_words: Annotated[int, Field(ge=0)] = 0
    """Drop shorter answers."""
    max_answer_words: Count | None = None
    """Drop longer answers."""
    decontaminate: bool = True
    """Drop what an exam asks."""
    exam_items: Annotated[int, Field(ge=0, le=10**6)] = 20
    """Exams smaller than this are topped up with judged questions, kept out of training; at most
    to a quarter of the samples that the leaf is asked for."""
    exam_choices: Annotated[int, Field(ge=0, le=9)] = 0
    """Wrong answers that the teacher writes to each reported question of an exam, for a second,
    multiple-choice exam of each leaf; the judge throws out what is not wrong. 0 makes no such
    exam; 3 is usual."""
    prompts: OptionalPath = None
    """A folder of prompts that replace the package's, by name. Those in a folder within it that is
    called as a branch, or as the path of a leaf, are for the leaves there."""
    pipeline: tuple[PipelineConfig, ...] = ()

    @model_validator(mode="after")
    def _pooled_asks_by_seed(self) -> GenerateConfig:
        if self.sampling == "pooled" and (self.target or self.samples_per_leaf):
            raise ValueError(
                'sampling = "pooled" asks as often as there are seeds, wherever they are: give '
                "samples_per_seed alone, without target and samples_per_leaf"
            )
        return self

    def judging_all(self) -> GenerateConfig:
        """The same, with every criterion judged by."""
        return self.model_copy(update={"judge": True, "judge_skips": ()})
