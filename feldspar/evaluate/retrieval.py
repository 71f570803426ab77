"""Retrieval as the rival of training: leaf exams with passages shown, by leaf and in pairs.

Each question of knowledge is put to base and result three times: alone, with the passages that
BM25 finds for it (Robertson and Zaragoza 2009; as in bm25s), and with the right one. The right
passage is the one that BM25 finds for question and reference together, which nobody who asks could
look for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from feldspar.config import EvaluateConfig, RetrievalConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee
from feldspar.evaluate.exams.answers import kept_answers
from feldspar.evaluate.scores import scores_of
from feldspar.records import Answer, Checkpoint, ExamItem, Leaf, Score
from feldspar.runs import open_step, read_recipe_of, read_rows
from feldspar.stats.intervals import Difference, paired_difference
from feldspar.steps import Step, Workspace
from feldspar.text import split_words
from feldspar.tokens.count import TokenCounter

ALONE, FOUND, RIGHT = "asked alone", "asked with BM25's passages", "asked with the right passage"
WAYS = (ALONE, FOUND, RIGHT)


class LeafAdvice(NamedTuple):
    """What training and retrieval each do for a leaf, over the same items."""

    leaf: str
    """Empty for all of them."""
    num_items: int
    right: dict[tuple[str, str], float]
    """Share of right answers by checkpoint and way."""
    taught_or_retrieved: Difference
    """The result asked alone, less the base with BM25's passages."""
    both: Difference
    """The result with BM25's passages, less the result alone."""

    @property
    def verdict(self) -> str:
        """`teach`, `retrieve`, `both`, or `either` where the items cannot tell."""
        difference = self.taught_or_retrieved
        if difference.is_beyond_noise:
            chosen = "teach" if difference.value > 0 else "retrieve"
        else:
            chosen = "either"
        return "both" if chosen != "retrieve" and self.both.interval.low > 0 else chosen


def ask_with_passages(
    workspace: Workspace,
    named_checkpoints: Sequence[tuple[str, Checkpoint]],
    leaves: Iterable[Leaf],
    items: Iterable[ExamItem],
    retrieval: RetrievalConfig,
    config: EvaluateConfig,
    *,
    student: StudentConfig,
    seed: int,
) -> Iterator[Score]:
    """Score checkpoints on the knowledge items with and without passages; answers lie in
    `FOLDER/answers/NAME.jsonl.zst`. A score's settings say how long its prompts are."""
    asked = list(with_passages(leaves, items, retrieval))
    lengths = _prompt_lengths(asked, TokenCounter(named_checkpoints[0][1].path))
    for name, checkpoint in named_checkpoints:
        path = workspace.folder / "answers" / f"{name}.jsonl.zst"
        answers = kept_answers(
            path,
            CheckpointExaminee(name, checkpoint, student),
            asked,
            config=config,
            seed=seed,
            progress=workspace.progress,
        )
        for score in scores_of(
            name,
            asked,
            answers,
            num_resamples=config.num_resamples,
            seed=seed,
            answers_path=str(path),
        ):
            tokens = f"{lengths[score.exam]:.0f} tokens a question on average"
            yield replace(score, settings=f"{tokens}, {retrieval.num_passages} passages")


RETRIEVAL_STEP = Step("retrieval", ask_with_passages, version=2)


def with_passages(
    leaves: Iterable[Leaf], items: Iterable[ExamItem], config: RetrievalConfig
) -> Iterator[ExamItem]:
    """The reported knowledge items in the three ways: an exam of each, with its parts by leaf.

    Passages are chunks of all leaves' documents. Items of your own exams are among them where
    `config.exams` names the exam. Nothing where no leaf has a document.
    """
    passages = [chunk.text for leaf in leaves for chunk in leaf.chunks]
    asked = [
        item
        for item in items
        if item.use == "report"
        and item.match not in ("likelihood", "judge")
        and (item.branch == "knowledge" or item.exam in config.exams)
    ]
    if not passages or not asked:
        return
    index = PassageIndex(passages)
    found = index.find([item.question for item in asked], config.num_passages)
    right = index.find([f"{item.question} {item.reference}" for item in asked], 1)
    shown: dict[str, Sequence[Sequence[str]]] = {
        ALONE: [()] * len(asked),
        FOUND: found,
        RIGHT: right,
    }
    for way, texts in shown.items():
        for item, of_item in zip(asked, texts, strict=True):
            numbered = [f"Passage {n}:\n{text}" for n, text in enumerate(of_item, start=1)]
            context = "\n\n".join([*numbered, *([item.context] if item.context else [])])
            # As an exam of its own, and not again in the figures of all leaves.
            yield replace(
                item,
                id=f"{item.id} {way}",
                exam=way,
                context=context or None,
                origin="file",
                is_retention=False,
            )


class PassageIndex:
    """BM25 over passages, by words as the package splits them in any language."""

    def __init__(self, passages: Sequence[str]) -> None:
        import bm25s

        self._passages = passages
        self._bm25: Any = bm25s.BM25()
        self._bm25.index([_terms(text) for text in passages], show_progress=False)

    def find(self, questions: Sequence[str], count: int) -> list[list[str]]:
        """The best `count` passages for each question, best first; fewer where there are fewer.

        A word that no passage has does not count.
        """
        count = min(count, len(self._passages))
        found = self._bm25.retrieve(
            [_terms(question) for question in questions], k=count, show_progress=False
        )
        return [[self._passages[place] for place in row] for row in found.documents.tolist()]


def read_advice(run_path: Path) -> list[LeafAdvice]:
    """What a run found about teaching and retrieving: all items first, then each leaf's.

    Empty where the run did not compare them.
    """
    step = open_step(run_path, "retrieval")
    if step is None:
        return []
    config = read_recipe_of(run_path)
    paths = {score.checkpoint: Path(score.answers_path) for score in step}
    right: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    leaf_of: dict[str, str] = {}
    for name, path in paths.items():
        for answer in read_rows(path, Answer):
            item, _, rest = answer.item.partition(" ")
            leaf_of[item] = answer.leaf
            if answer.is_right is not None:
                right[name, rest][item] = float(answer.is_right)
    base, *others = paths
    if not others:
        return []
    groups = {"": list(leaf_of)}
    for item, leaf in leaf_of.items():
        if leaf:
            groups.setdefault(leaf, []).append(item)
    seed, count = config.seed, config.evaluate.num_resamples
    return [
        _advice(leaf, items, right, (base, others[-1]), (count, seed))
        for leaf, items in groups.items()
    ]


def _advice(
    leaf: str,
    items: Sequence[str],
    right: dict[tuple[str, str], dict[str, float]],
    checkpoints: tuple[str, str],
    resampling: tuple[int, int],
) -> LeafAdvice:
    base, result = checkpoints
    kept = [item for item in items if all(item in of_way for of_way in right.values())]

    def values(name: str, way: str) -> list[float]:
        return [right[name, way][item] for item in kept]

    return LeafAdvice(
        leaf=leaf,
        num_items=len(kept),
        right={place: sum(values(*place)) / max(len(kept), 1) for place in right},
        taught_or_retrieved=paired_difference(
            values(base, FOUND), values(result, ALONE), *resampling
        ),
        both=paired_difference(values(result, ALONE), values(result, FOUND), *resampling),
    )


def _terms(text: str) -> list[str]:
    return [word.casefold() for word in split_words(text)]


def _prompt_lengths(items: Sequence[ExamItem], counter: TokenCounter) -> dict[str, float]:
    """Tokens of question and passages, on average, by way."""
    texts = [f"{item.context or ''}\n{item.question}" for item in items]
    totals: dict[str, list[int]] = defaultdict(list)
    for item, length in zip(items, counter.counts(texts), strict=True):
        totals[item.exam].append(length)
    return {way: sum(lengths) / len(lengths) for way, lengths in totals.items()}
