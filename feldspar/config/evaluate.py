"""What a recipe may say about what is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from feldspar.config.base import (
    Count,
    Fraction,
    NoneOrMore,
    OptionalPath,
    Part,
    PathText,
    Share,
    SmallCount,
)
from feldspar.config.teacher import TeacherConfig
from feldspar.keys import Place


class ExamConfig(Part):
    """An exam of your own: a JSONL file of items, scored before and after."""

    name: str
    """The exam's name in scores and in the report."""
    path: PathText
    """JSONL with `question`, `answer`, and optionally `accepted` and `match`; a folder of such
    files, each an exam of its own name; or an earlier run's directory, whose leaf exams are one
    exam here: what was taught before, and may be forgotten now."""
    retention: bool | tuple[str, ...] = False
    """The exam asks what the base can do and must keep: the report counts what each phase forgets
    of it. Of a folder, also the names of those exams alone. Always so for an earlier run's
    exams."""
    select: Share | None = None
    """Part of its items that is set apart for choosing (checkpoints, merged weights, releases) and
    is not reported. None: half of an exam of what is to be kept, else nothing."""


class BenchmarkConfig(Part):
    """A published benchmark, as lm_eval defines it: needs `pip install 'feldspar[eval]'`."""

    task: str
    """A task or group of lm_eval, such as `mmlu`, `arc_challenge`, `hellaswag`, `winogrande` or
    `gsm8k`."""
    num_fewshot: NoneOrMore | None = None
    """Examples shown in the prompt. None: as published (5, 25, 10, 5 and 5 for the tasks above),
    else the task's own number."""
    data: OptionalPath = None
    """A folder of `train.jsonl`, `validation.jsonl`, `dev.jsonl` or `test.jsonl` in the columns of
    the task's data set; a group's tasks share them by a `subject` column. None: from the hub."""
    limit: Count | None = None
    """Only the first items of each task, for a quick look."""
    split: Literal["published", "validation"] = "published"
    """`validation` scores the task's validation part instead, to choose by it and report the
    published part."""
    chat_template: bool = False
    """Ask through the student's chat template. Published rows are without."""


class MTBenchConfig(Part):
    """MT-Bench: 80 two-turn questions, rated by a judge from 1 to 10 (Zheng et al. 2023)."""

    data: OptionalPath = None
    """A folder in FastChat's layout: `question.jsonl`, `reference_answer/gpt-4.jsonl`, and
    `judge_prompts.jsonl` in it or beside it."""
    fetch: Place[bool] = False
    """Without `data`: fetch the published files from their public home, at a pinned commit."""
    home: Place[str] = "https://raw.githubusercontent.com/lm-sys/FastChat"
    """Where `fetch` downloads from, or a mirror of it; files are checked by digest."""
    judge: TeacherConfig | None = None
    """Who rates. None: the recipe's judge. Published ratings are GPT-4's of 2023."""
    mode: Literal["single", "pairwise"] = "single"
    """`single` rates each answer; `pairwise` compares it with `baseline`'s, in both orders."""
    baseline: OptionalPath = None
    """Answers in FastChat's layout to compare with. None: the base's own."""
    num_runs: Count = 1
    """How often everything is answered and judged, for the spread; published rows differ by 0.2."""
    max_new_tokens: Count = 1024
    """Longest answer to one turn in tokens."""

    def asked(self) -> MTBenchConfig:
        """What answers and ratings depend on: not where the files are from, nor who judges."""
        return self.model_copy(update={"fetch": False, "home": "", "judge": None, "data": None})


class RetrievalConfig(Part):
    """Retrieval as the rival of training: needs `pip install 'feldspar[retrieval]'`."""

    num_passages: SmallCount = 3
    """Passages that BM25 finds and a question shows."""
    exams: tuple[str, ...] = ()
    """Exams of your own, by name, that are asked with passages besides the knowledge leaves'."""


class GeneralConfig(Part):
    """What the base knows and can do, and must keep: an exam in free generation that is part of the
    package, some 680 short questions in two wordings each."""

    enabled: bool = True
    """Ask it of base and result. It is left out, with a word, where the student's tokenizer
    cannot write its questions."""
    max_new_tokens: SmallCount = 24
    """Longest answer in tokens."""
    items_per_kind: SmallCount | None = None
    """At most so many items of each kind in either half, for a quick look. None: all."""
    text: OptionalPath = None
    """A text file whose perplexity is told next to the exam, in passages with empty lines between
    them. None: some 1,200 words of our own."""
    kept_weight: Fraction = 0.5
    """What the kept items weigh where a phase selects by `learned-and-kept`; the leaves' exams
    weigh the rest."""


class EvaluateConfig(Part):
    """What is measured, and how."""

    exam: tuple[ExamConfig, ...] = ()
    """Exams of your own, besides the leaves'."""
    max_new_tokens: Count = 64
    """Longest answer to an exam item in tokens."""
    long_answers: Literal["likelihood", "judge"] = "likelihood"
    """How exam items whose answer is too long to match are measured: by the log-likelihood of the
    reference only, or also by a judge (then give room with `max_new_tokens`). Items with `match =
    "judge"` are judged either way."""
    min_selection_items: Count = 100
    """With fewer items no checkpoint is chosen: the phase's last is used, and the run says so."""
    num_resamples: Count = 1000
    """Bootstrap resamples for the intervals of log-likelihoods and differences; shares have
    Wilson's interval."""
    benchmark: tuple[BenchmarkConfig, ...] = ()
    """Published benchmarks, run before and after."""
    mt_bench: MTBenchConfig | None = None
    """MT-Bench, before and after. None: not run."""
    retrieval: RetrievalConfig | None = None
    """Ask base and result the knowledge exams alone, with passages found by BM25, and with the
    right passage: `compare` then says which leaves to teach and which to retrieve. None: not asked.
    """
    general: GeneralConfig = GeneralConfig()
    """General knowledge in free generation: what was kept, and what was lost."""
    server: TeacherConfig | None = None
    """Another model that is put through the same exams, benchmarks and MT-Bench, for a row next to
    the run's own: an `endpoint`, a `command` or a `folder`."""
    server_tasks: tuple[str, ...] = ()
    """What the server is asked: `exams`, `mt-bench`, and benchmarks by their task. One that has
    chat alone can do exams, MT-Bench and what is written, such as GSM8K. Empty: all."""
    server_tokenizer: OptionalPath = None
    """A folder or hub id with the server's tokenizer and chat template, for log-likelihoods of
    reference answers and multiple choice. None: that of its `folder`, or of the folder that its
    `command` serves; else exams are scored without these."""

    @field_validator("server")
    @classmethod
    def _server_has_a_url(cls, server: TeacherConfig | None) -> TeacherConfig | None:
        if server is not None and (server.is_embedded or server.batch):
            raise ValueError(
                "evaluate.server needs an `endpoint` (a URL that ends in /v1), a `command` or a "
                "`folder`"
            )
        return server

    @field_validator("benchmark")
    @classmethod
    def _benchmarks_are_asked_once(
        cls, benchmarks: tuple[BenchmarkConfig, ...]
    ) -> tuple[BenchmarkConfig, ...]:
        tasks = [benchmark.task for benchmark in benchmarks]
        if twice := next((task for task in tasks if tasks.count(task) > 1), None):
            raise ValueError(
                f"evaluate.benchmark has {twice!r} twice, and its items would be mixed; ask it in "
                "another way in another run"
            )
        return benchmarks

    @model_validator(mode="after")
    def _server_tasks_are_there(self) -> EvaluateConfig:
        tasks = ["exams", *(b.task for b in self.benchmark)]
        tasks += ["mt-bench"] * (self.mt_bench is not None)
        for task in self.server_tasks:
            if task not in tasks:
                there = ", ".join(tasks)
                raise ValueError(f"evaluate.server_tasks names {task!r}; there are: {there}")
        return self

    def asks_server(self, task: str) -> bool:
        """Whether `server` is put through `exams`, a benchmark, or `mt-bench`."""
        return self.server is not None and (not self.server_tasks or task in self.server_tasks)

    def of_items(self) -> EvaluateConfig:
        """What answers to exam items depend on, whichever exams there are."""
        return self.of_exams().model_copy(update={"exam": ()})

    def of_exams(self) -> EvaluateConfig:
        """What exams alone depend on, so that another benchmark leaves their scores as they are."""
        return self.model_copy(
            update={
                "benchmark": (),
                "mt_bench": None,
                "retrieval": None,
                "general": GeneralConfig(),
                "server": None,
                "server_tasks": (),
                "server_tokenizer": None,
            }
        )
