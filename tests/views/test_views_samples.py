"""Samples are found by words, leaf, state and reason; what supports an answer is marked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.records import Sample
from feldspar.runs import Run
from feldspar.views.sample_index import SampleIndex, SampleQuery, open_index
from feldspar.views.samples import mark_support

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
