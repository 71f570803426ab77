"""The taxonomy as a tree with each leaf's yield and exam, and a leaf's own page: why its rows fell,
what covers its passages, and how its exam went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from feldspar.generate.coverage import LeafCoverage
from feldspar.generate.funnel import LeafFunnel, Reason
from feldspar.records import Leaf, Score
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleSummary

STAGES = ("asked", "answered", "parsed", "judged", "distinct", "clean", "kept")
STAGE_MEANINGS = {
    "asked": "samples the teacher was asked for",
    "answered": "it did not refuse",
    "parsed": "the reply could be read and held as many as were asked for",
    "judged": "no judge said no",
    "distinct": "not a duplicate or a near-duplicate",
    "clean": "no exam asks it; language and length are those wanted",
    "kept": "went into the training data",
}
GRADES = ((0.4, "low"), (0.7, "middle"))
"""Shares below which a leaf is called so; from the last on it is `high`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A folder or a leaf, with sums over what is below."""

    path: str
    name: str
    is_leaf: bool
    num_leaves: int
    asked: int
    kept: int
    before: float | None
    """Share of exam items right, at the base; None without exam."""
    after: float | None
    num_items: int
    children: tuple[TreeNode, ...] = ()

    @property
    def kept_share(self) -> float | None:
        return self.kept / self.asked if self.asked else None

    @property
    def kept_grade(self) -> str:
        return grade(self.kept_share)

    @property
    def exam_grade(self) -> str:
        return grade(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCount:
    name: str
    meaning: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk of a leaf's documents."""

    id: str
    document: str
    text: str
    is_covered: bool
    """Whether a kept sample is of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafPage:
    leaf: Leaf
    stages: tuple[StageCount, ...]
    reasons: tuple[Reason, ...]
    reasons_of_samples: frozenset[str]
    """Those that a sample was rejected for: one that never came has no row."""
    note: str
    passages: tuple[Passage, ...]
    coverage: LeafCoverage | None
    exam: tuple[Score, ...]
    """Its exam's accuracy at each checkpoint, the base first."""


def grade(share: float | None) -> str:
    """`low`, `middle` or `high`; `none` where there is nothing to grade."""
    if share is None:
        return "none"
    return next((name for limit, name in GRADES if share < limit), "high")


def tree_of(run: RunFiles) -> TreeNode:
    """All leaves under their folders, in the order of their paths."""
    funnels = {f.leaf: f for f in (run.funnel.leaves if run.funnel else ())}
    exams = {name: _leaf_exams(run, name) for name in run.first_and_last or ()}
    first, last = run.first_and_last or ("", "")
    made = [
        _leaf_node(
            leaf.path,
            funnels.get(leaf.path),
            exams.get(first, {}).get(leaf.path),
            exams.get(last, {}).get(leaf.path),
        )
        for leaf in run.leaves
    ]
    return _folder("", made)


def leaf_page_of(run: RunFiles, path: str, samples: SampleSummary | None) -> LeafPage | None:
    """One leaf's page; None where the run has no such leaf."""
    leaf = next((leaf for leaf in run.leaves if leaf.path == path), None)
    if leaf is None:
        return None
    funnels = run.funnel.leaves if run.funnel else ()
    funnel = next((f for f in funnels if f.leaf == path), None)
    counts = _counts(funnel) if funnel else {}
    covered = samples.chunks if samples else frozenset()
    return LeafPage(
        leaf=leaf,
        stages=tuple(
            StageCount(name=name, meaning=STAGE_MEANINGS[name], count=counts[name])
            for name in STAGES
            if name in counts
        ),
        reasons=funnel.reasons if funnel else (),
        reasons_of_samples=frozenset(
            r.reason for r in (samples.rejected if samples else ()) if r.leaf == path
        ),
        note=" ".join(filter(None, (funnel.note, funnel.hint))) if funnel else "",
        passages=tuple(
            Passage(id=c.id, document=c.document, text=c.text, is_covered=c.id in covered)
            for c in leaf.chunks
        ),
        coverage=funnel.coverage if funnel else None,
        exam=tuple(s for s in run.scores if s.leaf == path and s.metric == "accuracy"),
    )


def _counts(funnel: LeafFunnel) -> dict[str, int]:
    numbers = (
        *(funnel.asked, funnel.answered, funnel.parsed, funnel.judged),
        *(funnel.distinct, funnel.clean, funnel.kept),
    )
    return dict(zip(STAGES, numbers, strict=True))


def _leaf_exams(run: RunFiles, checkpoint: str) -> Mapping[str, Score]:
    """Leaf -> its exam; the one with most items where it has several."""
    found: dict[str, Score] = {}
    for score in run.scores:
        if score.leaf and score.metric == "accuracy" and score.checkpoint == checkpoint:
            best = found.get(score.leaf)
            if best is None or score.num_items > best.num_items:
                found[score.leaf] = score
    return found


def _leaf_node(
    path: str, funnel: LeafFunnel | None, before: Score | None, after: Score | None
) -> TreeNode:
    return TreeNode(
        path=path,
        name=path.rpartition("/")[2],
        is_leaf=True,
        num_leaves=1,
        asked=funnel.asked if funnel else 0,
        kept=funnel.kept if funnel else 0,
        before=before.value if before else None,
        after=after.value if after else None,
        num_items=after.num_items if after else 0,
    )


def _folder(path: str, leaves: Iterable[TreeNode]) -> TreeNode:
    leaves = list(leaves)
    depth = len(path) + 1 if path else 0
    # A leaf may lie in another's folder, which is then the first in its own.
    children = [leaf for leaf in leaves if leaf.path == path]
    below_it = [leaf for leaf in leaves if leaf.path != path]
    for name in dict.fromkeys(leaf.path[depth:].partition("/")[0] for leaf in below_it):
        below = f"{path}/{name}" if path else name
        inside = [
            leaf for leaf in below_it if leaf.path == below or leaf.path.startswith(below + "/")
        ]
        is_leaf = len(inside) == 1 and inside[0].path == below
        children.append(inside[0] if is_leaf else _shortened(_folder(below, inside)))
    scored = [leaf for leaf in leaves if leaf.after is not None]
    num_items = sum(leaf.num_items for leaf in scored)
    return TreeNode(
        path=path,
        name=path.rpartition("/")[2] or "all leaves",
        is_leaf=False,
        num_leaves=len(leaves),
        asked=sum(leaf.asked for leaf in leaves),
        kept=sum(leaf.kept for leaf in leaves),
        before=_mean([(leaf.before, leaf.num_items) for leaf in scored]),
        after=_mean([(leaf.after, leaf.num_items) for leaf in scored]),
        num_items=num_items,
        children=tuple(children),
    )


def _shortened(folder: TreeNode) -> TreeNode:
    """A folder that holds one folder alone is drawn as one line: `grounded/baskets`."""
    if len(folder.children) != 1 or folder.children[0].is_leaf:
        return folder
    child = folder.children[0]
    return replace(child, name=f"{folder.name}/{child.name}")


def _mean(weighed: list[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in weighed if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
