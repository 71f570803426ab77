"""Real documents and questions that people wrote: what a real model learns of them, leaf by leaf.

    python benchmarks/real_documents.py prepare --data ../shared/data/taxonomy/knowledge-with-docs
        --base MODEL --out FOLDER
    feldspar run FOLDER/recipe.toml --set seed=1 --set name=documents-1        (and seeds 2 and 3)
    python benchmarks/real_documents.py table FOLDER/runs/documents-*
    python benchmarks/real_documents.py weighed FOLDER/runs/documents-*

`prepare` merges leaves about one article, holds a fifth of each leaf's questions out (at least
three, in leaves of eight or more), and writes the rest as a taxonomy. Held-out questions are asked
in two ways: written freely where the answer is short enough to match, and as a choice between the
right answer and answers to other questions of the same leaf and of the same type.

`weighed` puts the same choices to the same models twice more: by likelihood for its length, as the
exam has it, and by what the question adds to an answer's likelihood (PMI; Holtzman et al. 2021,
"Surface Form Competition", section 3.2), which an answer that is likely by itself cannot win by.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from feldspar.config import StudentConfig
from feldspar.generate.final_answers import accepted_final
from feldspar.progress import SILENT
from feldspar.records import Answer, ExamItem, Message
from feldspar.runs import open_step, read_recipe_of, read_rows, result_of
from feldspar.stats.intervals import paired_difference, proportion_interval
from feldspar.student.model import base_checkpoint, load_to_answer
from feldspar.student.scoring.score import Tree, score_trees
from feldspar.text import split_words

MIN_QUESTIONS, HELD_OUT, MIN_HELD_OUT, NUM_CHOICES = 8, 0.2, 3, 3
# One of the leaves names another topic's document: its questions belong to the topic.
TOPICS = {
    "black_capped_checkadee": "black_capped_chickadee",
    "Phoenix": "phoenix",
    "botony": "botany",
}
RECIPE = """\
# {questions} questions that people wrote about {leaves} articles; {held_out} of them are held out.

[taxonomy]
path = "taxonomy"
mirror = {mirror}
chunk_tokens = 200
exam_fraction = 0

[teacher]
endpoint = "embedded"

[generate]
calls_per_chunk = 1
pairs_per_call = 4
exam_items = 0

[student]
base = {base}
template = "own"
max_length = 512

[student.lora]
rank = 32
alpha = 64

[mix.base_replay]
from = "base"
prompts = "bank:general"
temperature = 0.0
num_rows = 400
max_new_tokens = 40
share = 0.25

[train.kl]
beta = 2.0

[train]
learning_rate = 1e-3
batch_samples = 16
warmup_steps = 10

[[train.phase]]
name = "knowledge"
branches = ["knowledge"]
num_epochs = 1
select = "last"

[evaluate]
max_new_tokens = 32

[[evaluate.exam]]
name = "held out"
path = "exams"
"""


class Question(NamedTuple):
    question: str
    answer: str

    @property
    def type(self) -> str:
        """Answers of one type can stand for each other: a number, a few words, a sentence."""
        if re.search(r"\d", self.answer) and len(split_words(self.answer)) <= 12:
            return "number"
        return "short" if len(split_words(self.answer)) <= 5 else "long"


def questions_of(qna: dict[str, Any]) -> Iterator[Question]:
    for seed in qna["seed_examples"]:
        for pair in seed.get("questions_and_answers", [seed]):
            yield Question(str(pair["question"]).strip(), str(pair["answer"]).strip())


def topics(data: Path) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """The leaves about each topic, as they were written, by the topic's name."""
    found = defaultdict(list)
    for path in sorted((data / "leaves").rglob("qna.yaml")):
        qna = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[TOPICS.get(path.parent.name, path.parent.name)].append((path, qna))
    return dict(found)


def split(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """What is shown to the teacher, and what is held out: by each question's own hash."""
    if len(questions) < MIN_QUESTIONS:
        return list(questions), []
    ranked = sorted(questions, key=lambda q: sha256(q.question.encode()).digest())
    number = max(MIN_HELD_OUT, round(HELD_OUT * len(questions)))
    return ranked[number:], ranked[:number]


def exam_rows(
    held_out: Sequence[Question], all_of_leaf: Sequence[Question]
) -> Iterator[dict[str, Any]]:
    for question in held_out:
        final = accepted_final(question.question, question.answer, "knowledge")
        if final is not None:
            yield {**question._asdict(), "accepted": [final], "match": "final"}
        others = dict.fromkeys(
            other.answer
            for other in all_of_leaf
            if other.type == question.type and other.answer.strip() != question.answer.strip()
        )
        if others:
            choices = list(others)[:NUM_CHOICES]
            asked = {**question._asdict(), "match": "choice", "choices": choices}
            # One item a line and question: the choice is its own question in the exam's file.
            yield asked


def prepare(data: Path, base: str, out: Path) -> None:
    num_leaves = num_questions = num_held_out = 0
    for topic, leaves in topics(data).items():
        questions = list({q.question: q for _, qna in leaves for q in questions_of(qna)}.values())
        shown, held_out = split(questions)
        # The newest version's words and document; another topic's document is not among them.
        path, qna = max(leaves, key=lambda leaf: leaf[1].get("version") or 0)
        place = out / "taxonomy" / path.parent.relative_to(data / "leaves")
        place.mkdir(parents=True, exist_ok=True)
        kept = {key: qna[key] for key in ("task_description", "document", "domain") if key in qna}
        written = {"version": 2, "created_by": "benchmark", **kept}
        written["seed_examples"] = [q._asdict() for q in shown]
        text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
        (place / "qna.yaml").write_text(text, encoding="utf-8")
        for way in ("final", "choice"):
            rows = [row for row in exam_rows(held_out, questions) if row["match"] == way]
            if rows:
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (out / "exams").mkdir(exist_ok=True)
                (out / "exams" / f"{way} {topic}.jsonl").write_text(lines, encoding="utf-8")
        num_leaves, num_questions = num_leaves + 1, num_questions + len(questions)
        num_held_out += len(held_out)
    recipe = RECIPE.format(
        questions=num_questions,
        leaves=num_leaves,
        held_out=num_held_out,
        mirror=json.dumps(str((data / "docs").resolve())),
        base=json.dumps(base),
    )
    (out / "recipe.toml").write_text(recipe, encoding="utf-8")
    print(f"{out}: {num_leaves} leaves, {num_questions} questions, {num_held_out} held out")


class Pairs(NamedTuple):
    """Whether base and taught model were right, item by item."""

    base: list[float]
    taught: list[float]

    def row(self, name: str) -> str:
        if not self.base:
            return f"| {name} | 0 | | | | | |"
        n = len(self.base)
        shares = [
            f"{sum(right) / n:.2f} [{low:.2f}, {high:.2f}]"
            for right in self
            for low, high in [proportion_interval(round(sum(right)), n)]
        ]
        known = [after for before, after in zip(*self, strict=True) if before]
        unknown = [after for before, after in zip(*self, strict=True) if not before]
        change = paired_difference(self.base, self.taught, num_resamples=1000, seed=1)
        low, high = change.interval
        return (
            f"| {name} | {n} | {shares[0]} | {shares[1]} "
            f"| {change.value:+.2f} [{low:+.2f}, {high:+.2f}] "
            f"| {sum(known):.0f} of {len(known)} | {sum(unknown):.0f} of {len(unknown)} |"
        )


def answers(run: Path) -> Iterator[tuple[ExamItem, Answer, Answer]]:
    """Each held-out item with the base's answer and the taught model's."""
    scores, exams = open_step(run, "scores"), open_step(run, "own-exams")
    assert scores is not None, f"{run} has no scores"
    assert exams is not None, f"{run} has no exams"
    names = [path.name for path in sorted((scores.folder / "answers").glob("*.jsonl.zst"))]
    base, *others = sorted(names, key=lambda name: name != "base.jsonl.zst")
    before, after = (
        {a.item: a for a in read_rows(scores.folder / "answers" / name, Answer)}
        for name in (base, others[-1])
    )
    for item in exams:
        if item.id in before and item.id in after:
            yield item, before[item.id], after[item.id]


def table(runs: Sequence[Path]) -> None:
    pairs: dict[str, dict[str, Pairs]] = {
        way: defaultdict(lambda: Pairs([], [])) for way in ("final", "choice")
    }
    for run in runs:
        for item, before, after in answers(run):
            if before.is_right is None or after.is_right is None:
                continue
            for name in (item.exam.partition(" ")[2], "**all**", f"seed of {run.name}"):
                found = pairs[item.match][name]
                found.base.append(float(before.is_right))
                found.taught.append(float(after.is_right))
    for way, title in (
        ("choice", "Choice between answers of one type"),
        ("final", "Written freely"),
    ):
        print(f"\n### {title}\n")
        print("| leaf | n | base | taught | change | kept of known | learned of unknown |")
        print("|---|---:|---|---|---|---:|---:|")
        for name in sorted(pairs[way], key=lambda name: (name.startswith("**"), name)):
            print(pairs[way][name].row(name))


NO_QUESTION = "Please answer."
WAYS = ("likelihood for its length", "what the question adds", "what it adds, a token")


def chosen(model: str, student: StudentConfig, items: Sequence[ExamItem]) -> list[list[float]]:
    """Whether each item's right answer is chosen, by each of the ways."""
    loaded = load_to_answer(model, student)

    def tree(question: str, texts: Sequence[str]) -> Tree:
        prompt = loaded.template.render_prompt([Message(role="user", content=question)])
        ids = [loaded.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        return Tree(prompt, ids)

    texts = [(item.reference, *item.choices) for item in items]
    asked, alone = (
        score_trees(loaded, [tree(q, t) for q, t in zip(questions, texts, strict=True)], SILENT)
        for questions in ([item.question for item in items], [NO_QUESTION] * len(items))
    )
    right: list[list[float]] = [[] for _ in WAYS]
    for answers_of, after, before in zip(texts, asked, alone, strict=True):
        added = [a.total - b.total for a, b in zip(after, before, strict=True)]
        weighed = (
            [a.total / len(text) for a, text in zip(after, answers_of, strict=True)],
            added,
            [gain / a.num_tokens for gain, a in zip(added, after, strict=True)],
        )
        for found, each in zip(right, weighed, strict=True):
            found.append(float(each[0] > max(each[1:])))
    return right


def weighed(runs: Sequence[Path]) -> None:
    student = read_recipe_of(runs[0]).student
    exams = open_step(runs[0], "own-exams")
    assert exams is not None, runs[0]
    items = [item for item in exams if item.match == "choice"]
    base = chosen(base_checkpoint(student.base).path, student, items)
    found = {way: defaultdict[str, Pairs](lambda: Pairs([], [])) for way in WAYS}
    for run in runs:
        taught = chosen(result_of(run).path, student, items)
        for way, before, after in zip(WAYS, base, taught, strict=True):
            for item, was, is_now in zip(items, before, after, strict=True):
                for name in (item.exam.partition(" ")[2], "**all**", f"seed of {run.name}"):
                    found[way][name].base.append(was)
                    found[way][name].taught.append(is_now)
    for way, rows in found.items():
        print(f"\n### Chosen by {way}\n")
        print("| leaf | n | base | taught | change | kept of known | learned of unknown |")
        print("|---|---:|---|---|---|---:|---:|")
        for name in sorted(rows, key=lambda name: (name.startswith("**"), name)):
            print(rows[name].row(name))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("prepare")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--base", required=True)
    made.add_argument("--out", type=Path, required=True)
    for name in ("table", "weighed"):
        shown = commands.add_parser(name)
        shown.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.data, args.base, args.out)
    elif args.command == "weighed":
        weighed(args.runs)
    else:
        table(args.runs)


if __name__ == "__main__":
    main()
