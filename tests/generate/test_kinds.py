"""Focal texts, reversed questions, questions across passages, and such without an answer."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_knowledge import RIVERS, TEXTS, estimated, inventive, of_kind, with_options
from test_samples import TOWN, generate, reasons

from feldspar.records import ExamItem

NUM_CHUNKS = len(TOWN.chunks)


def scripted(call: Call) -> str:
    """Other kinds of questions with unlike texts; says yes to all but what one passage tells."""
    if call.stage in ("knowledge-reversed", "knowledge-across", "knowledge-unanswerable"):
        word = call.stage.removeprefix("knowledge-")
        number = call.rng.randrange(10**9)
        return "".join(
            f"[Question]\n{word} {number + n}?\n[Answer]\nIt is {word} {number + n}.\n[End]\n"
            for n in range(int(call.section("How many")))
        )
    if call.stage == "focal-text":
        return f"About {call.section('Question')}"
    if call.stage == "judge-faithful" and call.section("Question").startswith("across"):
        return f"Verdict: {'YES' if 'Passage 2:' in call.section('Document') else 'NO'}"
    return inventive(call)


def test_a_focal_text_answers_a_question_that_is_paid_for(tmp_path: Path) -> None:
    config = with_options(kinds=("pair", "focal"))
    with FakeTeacher(scripted) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        calls, stages = list(server.calls), server.stages()
        assert len(calls) == estimated([TOWN], config)
    pairs, texts = of_kind(samples, "pair"), of_kind(samples, "document")
    assert stages["focal-text"] == len(pairs) == len(texts) == 32
    assert {t.question for t in texts} == {p.question for p in pairs}
    assert all(t.answer == f"About {t.question}" and t.context is None for t in texts)
    assert {t.rendering for t in texts} == {"focal"}
    judged = {(c.section("Question"), c.section("Answer")) for c in calls if "faithful" in c.stage}
    assert {(t.question, t.answer) for t in texts} <= judged
    assert len({sample.id for sample in samples}) == len(samples)
    asked = ExamItem(
        id="i", exam="e", branch="knowledge", question=texts[0].question, reference="-"
    )
    with FakeTeacher(scripted) as server:
        avoiding = generate(server, tmp_path, leaves=[TOWN], config=config, avoid=[asked])
        assert not server.calls
    (fallen,) = [s for s in of_kind(avoiding, "document") if not s.is_kept]
    assert (fallen.answer, str(fallen.rejected_because)[:5]) == (texts[0].answer, "exam:")


def test_a_focal_text_needs_a_good_pair_and_faith(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        if call.stage == "judge-faithful" and call.section("Answer").startswith("About"):
            return "Verdict: NO"
        return (
            "Verdict: NO"
            if call.stage == "judge-relevant" and "7" in call.prompt
            else scripted(call)
        )

    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=with_options(kinds=("focal",)))
        written = {c.section("Question") for c in server.calls if c.stage == "focal-text"}
    assert reasons(samples).keys() == {"judge: not relevant", "judge: not faithful"}
    good = {s.question for s in samples if s.rejected_because == "judge: not faithful"}
    assert written == good
    assert {s.kind for s in samples} == {"document"}


def test_kinds_of_their_own_are_asked_once_a_chunk_beside_pairs(tmp_path: Path) -> None:
    kinds = ("pair", "reversed", "across", "unanswerable")
    leaves = [TOWN, RIVERS]
    with FakeTeacher(scripted) as server:
        plain = generate(server, tmp_path, leaves=leaves, config=with_options())
        num_plain = len(server.calls)
        config = with_options(kinds=kinds, extra_calls=2)
        samples = generate(server, tmp_path, leaves=leaves, config=config)
        assert len(server.calls) == estimated(leaves, config)
        stages = server.stages()
    assert num_plain == estimated(leaves, with_options())
    assert of_kind(samples, "pair") == plain
    num_chunks = NUM_CHUNKS + len(RIVERS.chunks)
    for kind in kinds[1:]:
        assert stages[f"knowledge-{kind}"] == 2 * num_chunks
        assert len(of_kind(samples, kind)) == 2 * num_chunks * config.pairs_per_call
        assert all(s.is_kept for s in of_kind(samples, kind))
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in of_kind(samples, "unanswerable"):
        assert sample.context in TEXTS | {c.text for c in RIVERS.chunks}
    assert [j.criterion for j in of_kind(samples, "reversed")[0].judgments] == [
        "faithful", "relevant",
    ]  # fmt: skip


def test_a_question_across_passages_is_answered_by_both_and_by_neither(tmp_path: Path) -> None:
    config = with_options(kinds=("across",), extra_calls=3)
    with FakeTeacher(scripted) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        shown = [c.section("Document") for c in server.calls if c.stage == "knowledge-across"]
    found = [tuple(re.split(r"(?:\n\n)?Passage \d:\n", text)[1:]) for text in shown]
    assert len(set(found)) == len(found) == 3 * NUM_CHUNKS
    assert all(len(texts) == 2 and texts[0] != texts[1] for texts in found)
    assert Counter(text for first, _ in found for text in [first]) == dict.fromkeys(TEXTS, 3)
    criteria = ["faithful", "relevant", "passage 1 alone", "passage 2 alone"]
    assert {tuple(j.criterion for j in s.judgments) for s in samples} == {tuple(criteria)}
    with FakeTeacher(
        lambda c: "Verdict: YES" if c.stage == "judge-faithful" else scripted(c)
    ) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config, journal="lenient")
    assert reasons(samples).keys() == {"judge: one passage is enough"}
    alone = with_options(kinds=("pair", "across")).knowledge
    assert alone.extra_calls == 1


def test_that_a_passage_does_not_tell_is_judged_as_a_claim(tmp_path: Path) -> None:
    config = with_options(kinds=("unanswerable",))

    def answer(call: Call) -> str:
        if call.stage == "knowledge-unanswerable":
            told = "[Question]\nHow old is Zorbo?\n[Answer]\nThe text does not tell.\n[End]\n"
            return told * int(call.section("How many"))
        if call.stage == "judge-faithful":
            return f"Verdict: {'NO' if 'Zorbo' in call.section('Document') else 'YES'}"
        return answer_as_expert(call)

    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        judged = [c for c in server.calls if c.stage == "judge-faithful"]
    assert {(c.section("Question"), c.section("Answer")) for c in judged} == {
        (
            "Does the document tell the answer to this question? How old is Zorbo?",
            "No. The text does not tell.",
        )
    }
    kept = [s for s in samples if s.is_kept]
    # One question lacks its answer in three passages: three samples, and their repeats.
    assert {str(s.context) for s in kept} == {t for t in TEXTS if "Zorbo" not in t}
    assert len(kept) == 3
    assert {(s.question, s.answer) for s in samples} == {
        ("How old is Zorbo?", "The text does not tell.")
    }
    assert reasons(samples).keys() == {
        "kept", "judge: not faithful", "duplicate: same question and answer",
    }  # fmt: skip
