"""What a recipe may say about the samples that are asked for, and what is thrown away."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.config.base import (
    Count,
    NoneOrMore,
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
WantedKind = Literal[SampleKind, "rendering", "focal"]
Criterion = Literal["fit", "answer", "faithful", "relevant"]


class BudgetConfig(Part):
    """Caps on exams and samples together. One command never exceeds them. At a cap the run
    continues with what was kept, and says so. Answers from the journal count at what they cost when
    they were paid."""

    max_calls: Count | None = None
    """Most calls to the teacher and the judge together. None: no cap."""
    max_tokens: Count | None = None
    """Prompt and completion tokens together."""
    max_cost: Positive | None = None
    """In the currency of `teacher.prompt_price` and the other prices."""

    @property
    def is_capped(self) -> bool:
        return not (self.max_calls is self.max_tokens is self.max_cost is None)


class PipelineConfig(Part):
    """A pipeline of your own for some leaves: an `async` function in a Python file, which runs with
    your rights. docs/generation.md has an example."""

    file: PathText
    """The Python file. Its content is part of the key of the steps that ask."""
    function: str
    """`async def NAME(request: SampleRequest, writers: Writers) -> list[Sample]`."""
    leaves: Annotated[tuple[str, ...], Field(min_length=1)]
    """Branches or leaves by path, such as `compositional_skills/writing`. The longest match
    wins."""
    calls: Count = 1
    """Calls per sample if nothing is rejected; only `feldspar plan` uses it."""


class KnowledgeConfig(Part):
    """What knowledge leaves are asked for besides pairs about their chunks."""

    renderings: tuple[Rendering, ...] = ()
    """Forms in which the teacher rewrites each chunk, once each: a `summary`, its atomic `facts`,
    `study` notes. Each is asked about like the chunk, with `calls_per_chunk` calls, and judged
    against the chunk."""
    kinds: Annotated[tuple[WantedKind, ...], Field(min_length=1)] = ("pair",)
    """`pair`: question and answer. `document`: each chunk's text, all of it trained on.
    `rendering`: each of the `renderings` as such a text, judged against the chunk. `retrieval`:
    pairs with their chunk shown among others; it costs no call if `pair` is in the list. `focal`:
    for each question asked, a short text that answers it, all of it trained on. `reversed`:
    questions that name what a statement tells and ask for whom or what it is told of. `across`:
    questions that take two chunks of the leaf. `unanswerable`: questions with their chunk in view,
    whose answer says that it does not tell."""
    extra_calls: SmallCount = 1
    """Calls for each chunk and each of `reversed`, `across` and `unanswerable` in `kinds`, with
    `pairs_per_call` questions each."""
    least_forms: NoneOrMore = 0
    """Statements (sentences) of a chunk that fewer kept questions than this ask about are asked
    about again in one more round, named to the teacher. 0: no such round."""
    num_distractors: SmallCount = 3
    """Other chunks that a retrieval sample shows."""
    distractors: Literal["leaf", "taxonomy"] = "taxonomy"
    """Where the other chunks come from: `leaf`, the same leaf; `taxonomy`, half of them from other
    leaves."""

    @model_validator(mode="after")
    def _renderings_are_named(self) -> KnowledgeConfig:
        if "rendering" in self.kinds and not self.renderings:
            raise ValueError(
                'generate.knowledge.kinds has "rendering": name `renderings`, such as ["facts"]'
            )
        if self.least_forms and "pair" not in self.kinds:
            raise ValueError(
                'generate.knowledge.least_forms asks for more pairs: add "pair" to `kinds`'
            )
        return self


class GenerateConfig(Part):
    """How many samples the teacher writes, how, and which are rejected."""

    samples_per_leaf: SampleCount | None = None
    """Samples to request for each skill leaf. None: `samples_per_seed` times its seeds."""
    samples_per_seed: SampleCount = 10
    """Samples to request per seed of a skill leaf, if `samples_per_leaf` is not given."""
    target: SampleCount | None = None
    """Kept samples wanted per leaf: rounds continue until there are so many, or until too few are
    accepted. Replaces `samples_per_leaf`, `samples_per_seed` and `calls_per_chunk`."""
    budget: BudgetConfig = BudgetConfig()
    """Caps on calls, tokens and money."""
    pairs_per_call: SmallCount = 4
    """Questions requested in one call."""
    calls_per_chunk: SmallCount = 4
    """Calls for question-answer pairs on each chunk of a knowledge leaf."""
    seeds_per_prompt: SmallCount = 3
    """Seeds of the leaf shown in one prompt."""
    sampling: Literal["leaf", "pooled"] = "leaf"
    """Whose seeds a skill's prompt shows: `leaf`, the leaf's own; `pooled`, one of the leaf's and
    the others from anywhere in the taxonomy, as in self-instruct, for comparison."""
    knowledge: KnowledgeConfig = KnowledgeConfig()
    """What knowledge leaves are asked for besides question-answer pairs."""
    temperature: Temperature = 0.7
    """Sampling temperature of questions and answers; judges use 0."""
    max_tokens: Count = 1024
    """Longest reply in tokens."""
    min_rating: Annotated[int, Field(ge=1, le=3)] = 2
    """Lowest rating, of 1 to 3, with which a judged pair is kept."""
    judge: bool = True
    """false keeps samples without judging them, to see what judging is worth."""
    judge_skips: tuple[Criterion, ...] = ()
    """Criteria by which samples are not judged, to see what each is worth. Exams use all."""
    judge_floor: Annotated[float | None, Field(ge=0, le=1)] = None
    """Stop before generating if the judge's precision or recall on known pairs is lower for any
    criterion (`feldspar calibrate` shows them). None: no such test."""
    duplicates: bool = True
    """Drop repeated question-answer pairs of a leaf."""
    near_duplicates: bool = True
    """Drop near-duplicates within a leaf and against its seeds; needs `duplicates`."""
    language: bool = True
    """Drop questions and answers in a language that none of the leaf's seeds has."""
    min_answer_words: NoneOrMore = 0
    """Drop shorter answers."""
    max_answer_words: Count | None = None
    """Drop longer answers."""
    decontaminate: bool = True
    """Drop samples that an exam asks."""
    exam_items: Annotated[int, Field(ge=0, le=10**6)] = 20
    """Exams with fewer items are topped up with judged questions, which are kept out of training;
    at most a quarter of the samples requested for the leaf."""
    exam_choices: Annotated[int, Field(ge=0, le=9)] = 0
    """Wrong answers that the teacher writes for each reported exam question, for a second,
    multiple-choice exam of each leaf; the judge removes questions whose wrong answers are not all
    wrong. 0: none; 3 is usual."""
    prompts: OptionalPath = None
    """Folder of prompts that replace the package's, by file name. A subfolder named like a branch
    or a leaf's path applies to the leaves there."""
    pipeline: tuple[PipelineConfig, ...] = ()
    """Pipelines of your own, each for some of the leaves."""

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
