"""MT-Bench's questions, references and judge prompts, read from a folder in FastChat's layout.

    data/mt_bench/question.jsonl                   {"question_id": 81, "category": "writing",
                                                    "turns": ["...", "..."]}
    data/mt_bench/reference_answer/gpt-4.jsonl     {"question_id": 101, "choices": [{"turns": []}]}
    data/judge_prompts.jsonl                       {"name": "single-v1", "system_prompt": "...",
                                                    "prompt_template": "..."}

None of them are part of this project.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from feldspar.config import MTBenchConfig
from feldspar.errors import DiskError, RecipeError
from feldspar.files import write_bytes_whole
from feldspar.runs import cache_folder

COMMIT = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
QUESTIONS, REFERENCES, PROMPTS = (
    "question.jsonl",
    "reference_answer/gpt-4.jsonl",
    "judge_prompts.jsonl",
)
PUBLISHED = {
    QUESTIONS: (
        "mt_bench/question.jsonl",
        "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    ),
    REFERENCES: (
        "mt_bench/reference_answer/gpt-4.jsonl",
        "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    ),
    PROMPTS: (
        "judge_prompts.jsonl",
        "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    ),
}
"""Place under `fastchat/llm_judge/data` at COMMIT, and sha256, of each file."""
REFERENCE_CATEGORIES = frozenset({"math", "reasoning", "coding"})
"""What a judge is shown a reference answer for."""
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""Of the categories that are not answered greedily."""
FETCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Two turns: the second sees the model's own first answer."""

    id: int
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()
    """One a turn, for the categories that have one right answer; empty for the others."""


def temperature_of(question: Question) -> float:
    return TEMPERATURES.get(question.category, 0.0)


class JudgePrompt(NamedTuple):
    """`template` has places such as `{question}`, `{answer_2}` or `{ref_answer_1}`."""

    system: str
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MTBench:
    questions: tuple[Question, ...]
    prompts: dict[str, JudgePrompt]
    """By name: `single-v1`, `single-math-v1-multi-turn`, `pair-v2`, ..."""


def find_mt_bench(config: MTBenchConfig) -> list[Path]:
    """The files to read, fetched where the recipe asks for it. Raises RecipeError."""
    if config.data is not None:
        folder = Path(config.data)
        places = [folder / PROMPTS, folder.parent / PROMPTS]
        files = [folder / QUESTIONS, folder / REFERENCES]
        files.append(next((p for p in places if p.is_file()), places[0]))
        for file in files:
            if not file.is_file():
                raise RecipeError(f"{file}: no such file; {_where()}")
        return files
    if not config.fetch:
        raise RecipeError(f"evaluate.mt_bench names no `data`; {_where()}")
    return [_fetch(config.home, name) for name in (QUESTIONS, REFERENCES, PROMPTS)]


def read_mt_bench(files: list[Path]) -> MTBench:
    """Read the three files of `find_mt_bench`. Raises RecipeError with file and line."""
    questions_path, references_path, prompts_path = files
    references = {
        place.row["question_id"]: place.turns(place.row["choices"][0]["turns"])
        for place in _lines(references_path, ("question_id", "choices"))
    }
    questions = []
    for place in _lines(questions_path, ("question_id", "category", "turns")):
        row, turns = place.row, place.turns(place.row["turns"])
        needs = row["category"] in REFERENCE_CATEGORIES
        if needs and len(references.get(row["question_id"], ())) < len(turns):
            raise RecipeError(
                f"{place.name}: question {row['question_id']} ({row['category']}) has no answer in "
                f"{references_path}; {_where()}"
            )
        questions.append(
            Question(
                id=row["question_id"],
                category=row["category"],
                turns=turns,
                references=references[row["question_id"]] if needs else (),
            )
        )
    prompts = {
        place.row["name"]: JudgePrompt(place.row["system_prompt"], place.row["prompt_template"])
        for place in _lines(prompts_path, ("name", "system_prompt", "prompt_template"))
    }
    return MTBench(questions=tuple(questions), prompts=prompts)


def read_answers(path: Path) -> dict[int, tuple[str, ...]]:
    """A model's answers in FastChat's layout, both turns by question. Raises RecipeError."""
    return {
        place.row["question_id"]: place.turns(place.row["choices"][0]["turns"])
        for place in _lines(path, ("question_id", "choices"))
    }


class _LinePlace(NamedTuple):
    name: str
    row: dict[str, Any]

    def turns(self, value: object) -> tuple[str, ...]:
        if not (isinstance(value, list) and value and all(isinstance(t, str) for t in value)):
            raise RecipeError(f"{self.name}: `turns` must be a list of texts")
        return tuple(value)


def _lines(path: Path, keys: tuple[str, ...]) -> Iterator[_LinePlace]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); {_where()}") from error
    # By "\n" alone: texts hold other separators of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise RecipeError(f"{path}:{number}: no {missing[0]!r} in it; {_where()}")
        yield _LinePlace(f"{path}:{number}", row)


def _where() -> str:
    return (
        "MT-Bench is FastChat's (github.com/lm-sys/FastChat, fastchat/llm_judge/data): point "
        "evaluate.mt_bench.data at its mt_bench folder, or set evaluate.mt_bench.fetch = true"
    )


def _fetch(home: str, name: str) -> Path:
    place, digest = PUBLISHED[name]
    path = cache_folder() / "mt-bench" / COMMIT[:12] / name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return path
    url = f"{home.rstrip('/')}/{COMMIT}/fastchat/llm_judge/data/{place}"
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as reply:
            content: bytes = reply.read()
    except (OSError, ValueError) as error:
        raise RecipeError(f"{url}: cannot be fetched ({error}); {_where()}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise RecipeError(f"{url}: not the published file; {_where()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_whole(path, content, is_shared=True)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error}") from error
    return path
