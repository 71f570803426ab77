"""Samples are found by words, leaf, state and reason; what supports an answer is marked."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.records import Chunk, Leaf, Sample
from feldspar.reviews import ReviewDecision, SettledReview, review_key
from feldspar.runs import Run
from feldspar.views.passages import find_passages
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleIndex, SampleQuery, open_index
from feldspar.views.samples import SampleReader, mark_support

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


def samples() -> Iterator[Sample]:
    for n in range(120):
        yield Sample(
            id=str(n),
            leaf=f"knowledge/{'stones' if n % 2 else 'stones_old'}/leaf",
            branch="knowledge",
            question=f"What is the home of Zorbo {n}?",
            answer="Zorbo lives in Kirby." if n % 3 else 'Say "nothing" AND* (NEAR',
            chunk=f"c{n % 4}",
            draw=n // 4,
            rejected_because=f"judge: not faithful (case {n})" if n % 5 == 0 else None,
        )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SampleIndex:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    with Run(tmp_path / "r", RECIPE) as run:
        return open_index(do_step(run, "samples", samples))


def found(index: SampleIndex, **asked: str | int) -> set[int]:
    page = index.find(SampleQuery(**asked))
    assert page.num_found >= len(page.samples)
    return {int(sample.id) for sample in page.samples}


def test_pages_hold_all_samples_once(index: SampleIndex) -> None:
    pages = [found(index, page=n) for n in (1, 2, 3)]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert set.union(*pages) == set(range(120))
    first = index.find(SampleQuery())
    assert (first.num_found, first.num_kept, first.num_pages) == (120, 96, 3)


def accepted(sample: Sample) -> dict[str, SettledReview]:
    key = review_key(sample)
    decision = ReviewDecision(sample=key, verdict="accepted", reviewer="anna", at=datetime.now(UTC))
    return {key: SettledReview(decisions=(decision,))}


def test_no_open_sample_is_passed_over_while_others_are_decided_on(index: SampleIndex) -> None:
    query, reviews, seen = SampleQuery(review="open"), dict[str, SettledReview](), list[str]()
    while (page := index.find(query, reviews)).num_found:
        # The first of each page is left open.
        assert (page.first, page.last) == (page.num_before + 1, page.num_before + len(page.samples))
        for sample in page.samples[1:]:
            reviews |= accepted(sample)
        seen += [sample.id for sample in page.samples]
        if page.later is None:
            break
        asked = {name: int(v) if name in ("page", "after") else v for name, v in page.later.items()}
        query = SampleQuery(**asked)
    assert seen == [str(n) for n in range(120)]
    # Behind the last one those come that were passed over, and no page is beyond the last.
    for query in (SampleQuery(review="open", after=120), SampleQuery(review="open", page=9)):
        page = index.find(query, reviews)
        assert [sample.id for sample in page.samples] == ["0", "50", "100"]
        assert (page.first, page.last, page.later, page.earlier) == (1, 3, None, None)
    assert index.find(SampleQuery(page=99)).first == 101


def test_a_script_without_blanks_is_searched_by_its_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    town, baker = "カービィの町は北にあります。", "パン屋はゾルボです。"
    said = [("町はどこですか。", town), ("パン屋は誰ですか。", baker), ("北町?", "いいえ")]

    def written() -> Iterator[Sample]:
        for n, (question, answer) in enumerate(said):
            yield Sample(id=str(n), leaf="l", branch="knowledge", question=question, answer=answer)

    with Run(tmp_path / "r", RECIPE) as run:
        index = open_index(do_step(run, "samples", written))
    assert found(index, words="ゾルボ") == {1}
    assert found(index, words="町は北") == {0}
    assert found(index, words="ﾊﾟﾝ屋") == {1}
    assert [s.id for s, _ in index.nearest("ゾルボはパン屋です", 1)] == ["1"]
    leaf = Leaf(
        path="l",
        branch="knowledge",
        task_description="",
        seeds=(),
        chunks=tuple(
            Chunk(id=text, document="d", text=text, num_tokens=9) for text in (town, baker)
        ),
    )
    assert [p.text for p in find_passages([leaf], "ゾルボとは?", 1)] == [baker]


def test_rejected_neighbours_take_no_room_of_kept_ones(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feldspar.views.sample_index.NUM_NEAR", 1)
    [(near, _)] = index.nearest("What is the home of Zorbo 100?", 5)
    assert near.is_kept


def test_a_sample_is_shown_with_every_passage_it_was_asked_with(tmp_path: Path) -> None:
    leaf = Leaf(
        path="l",
        branch="knowledge",
        task_description="",
        seeds=(),
        chunks=(Chunk(id="c", document="d", text="Zorbo bakes. Kirby is cold.", num_tokens=6),),
    )
    with Run(tmp_path / "r", RECIPE) as run:
        do_step(run, "leaves", lambda: [leaf])
    reader = SampleReader(RunFiles(tmp_path / "r"))
    closed = Sample(id="1", leaf="l", branch="knowledge", question="", answer="", chunk="c")
    across = f"Passage 1:\n{leaf.chunks[0].text}\n\nPassage 2:\nMirad sails."
    for context, shown in (
        (None, leaf.chunks[0].text),
        ("Zorbo bakes.", leaf.chunks[0].text),
        (across, across),
    ):
        passage = reader.view(dataclasses.replace(closed, context=context)).passage
        assert passage is not None
        assert "".join(passage) == shown


def test_they_are_found_by_the_beginnings_of_words(index: SampleIndex) -> None:
    assert found(index, words="zor 17") == {17}
    assert found(index, words="kirb home 11") == {11, 110, 112, 113, 115, 116, 118, 119}
    assert found(index, words="nowhere") == set()


@pytest.mark.parametrize("words", ['"', "AND OR NOT", 'near( "', "a*b", "question:x", "'; --", "-"])
def test_what_is_typed_is_never_a_query_of_its_own(index: SampleIndex, words: str) -> None:
    index.find(SampleQuery(words=words, reason="judge: not faithful"))


def test_facets_narrow_it_down(index: SampleIndex) -> None:
    rejected = index.find(SampleQuery(state="rejected", words="Zorbo"))
    assert rejected.num_found == 24
    assert [tuple(f) for f in rejected.reasons] == [("judge: not faithful", 24)]
    assert found(index, reason="judge: not faithful", state="kept") == set()
    # A folder is what lies below it, and no other that begins alike.
    assert index.find(SampleQuery(leaf="knowledge/stones")).num_found == 60
    assert index.find(SampleQuery(leaf="knowledge/*")).num_found == 0
    assert index.find(SampleQuery(chunk="c1")).num_found == 30


def test_a_sample_is_found_with_what_its_call_gave(index: SampleIndex) -> None:
    sample = index.get("8")
    assert sample is not None
    assert {s.id for s in index.of_one_call(sample)} == {"8"}
    assert index.get("120") is None
    assert {s.answer for s, _ in index.nearest("Zorbo lives in Kirby.", 3)} == {
        "Zorbo lives in Kirby."
    }


def test_the_index_is_made_once_and_counts_all(index: SampleIndex, tmp_path: Path) -> None:
    summary = index.summary()
    assert (summary.num_samples, summary.num_kept) == (120, 96)
    assert summary.chunks == {"c0", "c1", "c2", "c3"}
    assert len(list((tmp_path / "cache" / "samples").iterdir())) == 1


def test_the_sentence_that_supports_an_answer_is_marked() -> None:
    sample = Sample(
        id="1",
        leaf="l",
        branch="knowledge",
        question="Where does Zorbo live?",
        answer="Zorbo lives in Kirby.",
    )
    passage = "Mirad is a sailor. Zorbo lives in the town of Kirby. Bread is dear."
    before, supporting, after = mark_support(passage, sample)
    assert supporting.strip() == "Zorbo lives in the town of Kirby."
    assert before + supporting + after == passage
    assert mark_support("Bread is dear.", sample).supporting == ""
