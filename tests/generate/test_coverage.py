"""Which statements are asked about, and the round that asks those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_knowledge import with_options
from test_samples import TOWN, generate

from feldspar.config import GenerateConfig
from feldspar.generate import read_funnel
from feldspar.generate.coverage import MAX_SHOWN, AskedStatements, LeafCoverage
from feldspar.records import Chunk, Sample, SampleKind

SAX = (
    "The saxophone was invented by Adolphe Sax in 1846. It is played with a single reed. "
    "Most saxophones are made of brass. Charlie Parker played the alto saxophone in Kansas City."
)


def chunk(text: str) -> Chunk:
    return Chunk(id="c", document="d", text=text, num_tokens=9)


def pair(question: str, answer: str, kind: SampleKind = "pair", fell: str | None = None) -> Sample:
    return Sample(
        id=question, leaf="l", branch="knowledge", question=question, answer=answer, chunk="c",
        kind=kind, rejected_because=fell,
    )  # fmt: skip


def covered(text: str, *samples: Sample) -> AskedStatements:
    coverage = AskedStatements("l", [chunk(text)])
    for sample in samples:
        coverage.add(sample)
    return coverage


def test_a_question_is_about_the_statement_that_it_and_its_answer_hold() -> None:
    coverage = covered(
        SAX,
        pair("Who invented the saxophone?", "Adolphe Sax invented it in 1846."),
        pair("In which year was the saxophone invented by Adolphe Sax?", "In 1846."),
        pair("Who invented the saxophone?", "It was Adolphe Sax, in 1846."),
        pair("Where did Charlie Parker play the alto saxophone?", "In Kansas City."),
        pair("What are most saxophones made of?", "Brass.", fell="judge: not faithful"),
        pair("What are most saxophones made of?", "The text does not tell.", "unanswerable"),
        pair("", SAX, "document"),
    )
    assert [s.forms for s in coverage.statements()] == [2, 0, 0, 1]
    summary = coverage.summary()
    assert (summary.num_statements, summary.num_asked) == (4, 2)
    assert summary.forms == (2, 1, 1, 0, 0, 0, 0, 0, 0)
    assert [s.text for s in summary.never] == [
        "It is played with a single reed.",
        "Most saxophones are made of brass.",
    ]
    assert [(s.text[:7], s.forms) for s in coverage.lacking(2)][-1] == ("Charlie", 1)


def test_a_long_answer_is_about_every_statement_it_tells() -> None:
    told = SAX.replace("It is", "The saxophone is")
    assert covered(SAX, pair("Tell me about the saxophone.", told)).summary().num_asked == 4
    tokyo = "東京は日本の首都である。京都は古い都である。"
    asked = pair("日本の首都はどこですか。", "東京です。")
    assert covered(tokyo, asked).summary().num_asked == 1


@pytest.mark.parametrize(
    "text", ["", "### Task", "[End]\n[Question]", "\u202e|" * 900, "a " * 9000]
)
def test_any_text_can_be_looked_through(text: str) -> None:
    coverage = covered(text, pair("Who?", "Nobody."), pair("", ""))
    assert coverage.summary().num_asked == 0


def test_only_the_first_that_nothing_asks_are_shown() -> None:
    text = " ".join(f"The number of rooms in house {n} is {n}." for n in range(MAX_SHOWN + 5))
    summary = covered(text).summary()
    assert (summary.num_statements, len(summary.never)) == (MAX_SHOWN + 5, MAX_SHOWN)


def of_first_home(call: Call) -> str:
    """Asks about the first statement of a passage alone, unless others are named."""
    if call.stage == "knowledge-uncovered":
        homes = [line.split() for line in call.section("Statements").splitlines()]
        return "".join(
            f"[Question]\nWhat is the home of {h[3]}, {call.rng.random()}?\n[Answer]\n"
            f"The home of {h[3]} is {h[5]}\n[End]\n"
            for h in homes
        )
    if call.stage == "knowledge-pairs":
        name, _, town = call.section("Document").removeprefix("The home of ").split()[:3]
        return f"[Question]\nWhere does {name} live?\n[Answer]\nThe home of {name} is {town}\n[End]"
    return answer_as_expert(call)


def test_statements_that_nothing_asks_are_named_in_one_more_round(tmp_path: Path) -> None:
    config = with_options(GenerateConfig(calls_per_chunk=1, pairs_per_call=2, exam_items=0))
    with FakeTeacher(of_first_home) as server:
        plain = generate(server, tmp_path, leaves=[TOWN], config=config)
        before = coverage_of(tmp_path)
    assert (before.num_statements, before.num_asked) == (8, 4)
    config = config.model_copy(
        update={"knowledge": config.knowledge.model_copy(update={"least_forms": 2})}
    )
    with FakeTeacher(of_first_home) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config, journal="again")
        asked = [c for c in server.calls if c.stage == "knowledge-uncovered"]
        num_calls = len(server.calls)
        assert generate(server, tmp_path, leaves=[TOWN], config=config, journal="again") == samples
        assert len(server.calls) == num_calls
    assert samples[: len(plain)] == plain
    named = [call.section("Statements").splitlines() for call in asked]
    # Both statements of each passage lack a form, and one of them another.
    assert sorted(map(len, named)) == [1] * 4 + [2] * 4
    assert all(
        call.section("How many") == str(len(n)) for call, n in zip(asked, named, strict=True)
    )
    more = samples[len(plain) :]
    assert len(more) == 12
    assert all(s.is_kept and s.kind == "pair" and s.judgments for s in more)
    assert len({sample.id for sample in samples}) == len(samples)
    after = coverage_of(tmp_path)
    assert (after.num_asked, after.never, after.forms[0]) == (8, (), 0)
    lines = (tmp_path / "coverage.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["forms"] for line in lines] == [2] * 8


def test_the_round_comes_on_top_of_a_target(tmp_path: Path) -> None:
    config = GenerateConfig(target=2, exam_items=0)
    with FakeTeacher(of_first_home) as server:
        samples = generate(
            server, tmp_path, leaves=[TOWN], config=with_options(config, least_forms=1)
        )
    kept = [s for s in samples if s.is_kept]
    assert len(kept) > 2
    assert coverage_of(tmp_path).forms[0] == 0


def coverage_of(here: Path) -> LeafCoverage:
    funnel = read_funnel(here / "funnel.json")
    (leaf,) = funnel.leaves
    assert leaf.coverage is not None
    assert funnel.reach == (leaf.coverage.num_statements, leaf.coverage.num_asked)
    return leaf.coverage


def test_more_forms_are_wanted_of_pairs_alone() -> None:
    with pytest.raises(ValueError, match='add "pair"'):
        with_options(kinds=("retrieval",), least_forms=1)
