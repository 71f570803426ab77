"""The world as files: an ordinary taxonomy folder with documents, base replay, and exams."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import yaml

from feldspar.config import WorldConfig
from feldspar.errors import TaxonomyError
from feldspar.files import first_folder
from feldspar.world.corpus import base_replay_rows
from feldspar.world.prose import (
    ATTRIBUTES,
    FACT_FORMS,
    LONG_FORMS,
    Entity,
    ask,
    describe,
    write_document,
)
from feldspar.world.questions import QuestionPools
from feldspar.world.serve import world_of
from feldspar.world.skills import Solution
from feldspar.world.truth import World

ENTITIES_PER_LEAF = 15
CONTEXTS_PER_LEAF = 5
SEEDS_PER_SKILL = 10
NUM_REPLAY_ROWS = 4000
MARK = "world.json"

SKILL_LEAVES = {
    "add": ("foundational_skills/arithmetic/addition", "Add a small number to another."),
    "subtract": ("foundational_skills/arithmetic/subtraction", "Take a small number from another."),
    "larger": ("foundational_skills/choosing/larger", "Say which of two numbers is larger."),
    "smallest": (
        "foundational_skills/choosing/smallest",
        "Say which of two numbers is the smallest.",
    ),
    "last": ("foundational_skills/choosing/last", "Say which of three numbers comes last."),
    "sort": ("foundational_skills/ordering/sorting", "Put two numbers in order."),
    "tool": ("foundational_skills/common_sense/tools", "Say which tool a craft uses."),
    "later": ("compositional_skills/people/age_later", "Say how old somebody will be."),
    "ago": ("compositional_skills/people/age_ago", "Say how old somebody was."),
    "older": ("compositional_skills/people/older", "Say which of two people is older."),
    "uses": ("compositional_skills/people/tool_at_work", "Say which tool somebody works with."),
    "grounded": (
        "compositional_skills/grounded/baskets/counting",
        "Say how many of one kind there are in the basket that is shown.",
    ),
}
"""Folder and task of each skill's leaf."""


class WorldFiles(NamedTuple):
    taxonomy: Path
    base_replay: Path
    """JSONL of `messages` rows."""
    exams: Path
    """Folder of NAME.jsonl."""


def write_world(config: WorldConfig, folder: Path) -> WorldFiles:
    """Write a world beside `folder` and rename it; the same config gives the same bytes.

    A folder that holds this very world already is left as it is. Raises TaxonomyError where it
    holds anything else.
    """
    world = world_of(config)
    assert world is not None
    texts = dict(world_texts(world))
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    mark = json.dumps({**config.model_dump(), "digest": digest}) + "\n"
    if not _holds(folder, mark):
        _write_files(folder, {**texts, MARK: mark})
        # Another process may have been first.
        _holds(folder, mark)
    return WorldFiles(folder / "taxonomy", folder / "base-replay.jsonl", folder / "exams")


def world_texts(world: World) -> Iterator[tuple[str, str]]:
    """Every file of a world, as (path, text)."""
    pools = QuestionPools(world, seed=world.seed, max_size=SEEDS_PER_SKILL)
    for path, text in _knowledge_leaves(world):
        yield f"taxonomy/{path}", text
    for kind, (path, task) in SKILL_LEAVES.items():
        for name, text in _skill_leaf(kind, task, pools):
            yield f"taxonomy/{path}/{name}", text
    yield "base-replay.jsonl", _lines(_replay_rows(world))
    for exam, solutions in world.exams().items():
        yield f"exams/{file_name(exam)}.jsonl", _lines(_exam_row(s) for s in solutions)


def file_name(exam: str) -> str:
    """`compositional (unseen pairs)` is `compositional-unseen-pairs`."""
    return "-".join("".join(c if c.isalnum() else " " for c in exam).split())


def _knowledge_leaves(world: World) -> Iterator[tuple[str, str]]:
    num_leaves = max(1, round(len(world.new) / ENTITIES_PER_LEAF))
    bounds = [len(world.new) * index // num_leaves for index in range(num_leaves + 1)]
    for number, (start, end) in enumerate(pairwise(bounds), start=1):
        title = f"The people of register {number}"
        for name, text in _knowledge_leaf(title, world.new[start:end], world):
            yield f"knowledge/people/register_{number}/{name}", text


def _knowledge_leaf(
    title: str, people: Sequence[Entity], world: World
) -> Iterator[tuple[str, str]]:
    rng = random.Random(f"{world.seed} {title}")
    shown = rng.sample(people, min(CONTEXTS_PER_LEAF, len(people)))
    yield (
        "qna.yaml",
        _yaml(
            {
                "version": 3,
                "created_by": "feldspar-world",
                "domain": "people",
                "task_description": f"{title}: their age, home, craft and food.",
                "seed_examples": [_example(entity, world, rng) for entity in shown],
                "document_outline": f"{title}: who they are, one section for each.",
                "document": {"path": "documents", "patterns": ["*.md"]},
            }
        ),
    )
    yield "attribution.txt", _attribution(title)
    yield "documents/register.md", write_document(title, people, rng)


def _example(entity: Entity, world: World, rng: random.Random) -> dict[str, object]:
    """A passage with two short questions and a long one, none in the exam form."""
    asked = [
        ask(entity.name, attribute, rng.randrange(1, len(FACT_FORMS[attribute])))
        for attribute in rng.sample(ATTRIBUTES, 2)
    ]
    asked.append(rng.choice(LONG_FORMS).format(name=entity.name))
    solutions = [world.solve(question) for question in asked]
    return {
        "context": describe(entity, rng),
        "questions_and_answers": [
            {"question": s.question, "answer": s.answer} for s in solutions if s is not None
        ],
    }


def _skill_leaf(kind: str, task: str, pools: QuestionPools) -> Iterator[tuple[str, str]]:
    yield (
        "qna.yaml",
        _yaml(
            {
                "version": 3,
                "created_by": "feldspar-world",
                "task_description": task,
                "seed_examples": [_seed(solution) for solution in pools.of_kinds((kind,))],
            }
        ),
    )
    yield "attribution.txt", _attribution(task)


def _seed(solution: Solution) -> dict[str, str]:
    seed = {"question": solution.question, "answer": solution.answer}
    return {"context": solution.context, **seed} if solution.context else seed


def _replay_rows(world: World) -> Iterator[dict[str, object]]:
    rng = random.Random(f"base replay {world.seed}")
    for row in base_replay_rows(world, NUM_REPLAY_ROWS, rng):
        said = [{"role": "assistant", "content": row.answer}]
        if row.question:
            said.insert(0, {"role": "user", "content": row.question})
        # Plain text has no question: all of it is trained on.
        yield {"messages": said, "unmask": not row.question}


def _exam_row(solution: Solution) -> dict[str, object]:
    row: dict[str, object] = {"question": solution.question, "answer": solution.answer}
    if solution.context:
        row["context"] = solution.context
    return {**row, "accepted": [solution.final], "match": "final"}


def _attribution(title: str) -> str:
    lines = [
        f"Title of work: {title}",
        "License of the work: Apache-2.0",
        "Creator names: Feldspar's micro-world",
    ]
    return "\n".join(lines) + "\n"


def _lines(rows: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _yaml(content: dict[str, object]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=96)


def _holds(folder: Path, mark: str) -> bool:
    """Whether a folder holds the marked world; False where it is free to be written."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / MARK
    if not path.is_file() or path.read_text(encoding="utf-8") != mark:
        raise TaxonomyError(f"{folder}: holds something else; remove it or name another folder")
    return True


def _write_files(folder: Path, texts: dict[str, str]) -> None:
    with first_folder(folder) as beside:
        for name, text in texts.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
