import hashlib
import io
import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from feldspar.config import (
    DEFAULT_PHASES,
    BaseReplayConfig,
    MixConfig,
    PhaseConfig,
    ReplayConfig,
    TrainConfig,
)
from feldspar.errors import RecipeError
from feldspar.mix.phases import BASE_REPLAY, DOCUMENTS, mix_phases, warnings
from feldspar.mix.rows import CONVERSATIONS
from feldspar.records import Conversation, Message, Sample, Source
from feldspar.steps import Workspace
from feldspar.student.training.schedule import SourceRows, draws
from feldspar.tokens.count import TokenCounter

ONLY_KNOWLEDGE = PhaseConfig(name="only", branches=("knowledge",))


def sample(number, branch, answer="a b", **changes):
    given = {"context": None, "rejected_because": None, "question": f"question {number}?"}
    return Sample(
        id=f"s{number}",
        leaf=f"{branch}/leaf",
        branch=branch,
        answer=answer,
        **given | changes,
    )


def taxonomy_samples():
    """Four knowledge answers of 1, 2, 2 and 9 words, two skills, and one that was rejected."""
    answers = ("one", "one two", "two words", "nine " * 9)
    return [
        *(sample(n, "knowledge", answer, context="A passage.") for n, answer in enumerate(answers)),
        sample(10, "foundational"),
        sample(11, "compositional", context="A table."),
        sample(12, "knowledge", rejected_because="judge: not faithful"),
    ]


def mix(samples, here, config=None, phases=DEFAULT_PHASES, data=None, base_replay=None):
    return list(
        mix_phases(
            Workspace(folder=here),
            samples,
            config or MixConfig(),
            phases=phases,
            data=data or {},
            base_replay=base_replay,
            counter=TokenCounter(),
        )
    )


def read_source(source: Source) -> list[Conversation]:
    packed = Path(source.path).read_bytes()
    with io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(packed)) as lines:
        return [CONVERSATIONS.validate_json(line) for line in lines]


def write_lines(path, *rows):
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


def chat(question="hi", answer="hello", **more):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def test_the_cards_order_splits_at_the_median_and_replays_by_reference(tmp_path):
    short, long, skills = mix(taxonomy_samples(), tmp_path)
    assert [c.id for c in read_source(short.sources[0])] == ["s0", "s1", "s2"]  # ties are short
    assert [c.id for c in read_source(long.sources[0])] == ["s3"]
    assert [c.id for c in read_source(skills.sources[0])] == ["s10", "s11"]
    assert [(s.name, s.fraction) for s in skills.sources] == [
        ("skills", None),
        ("knowledge-short", 1.0),
        ("knowledge-long", 1.0),
    ]
    assert skills.sources[1].path == short.sources[0].path
    assert len(list(tmp_path.glob("*.jsonl.zst"))) == 3


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_texts_are_the_part_of_a_phases_taxonomy_rows_that_it_wants(tmp_path, share):
    texts = [
        sample(20 + n, "knowledge", f"text {n}", question="", kind="document") for n in range(2)
    ]
    phases = (
        PhaseConfig(name="first", branches=("foundational",)),
        PhaseConfig(
            name="facts",
            branches=("knowledge",),
            length="short",
            documents=share,
            replay=(ReplayConfig(phase="first", fraction=1.0),),
        ),
        PhaseConfig(
            name="last",
            branches=("compositional",),
            replay=(ReplayConfig(phase="facts", share=0.2),),
        ),
    )
    general = write_lines(tmp_path / "general.jsonl", chat())
    config = MixConfig(base_replay=BaseReplayConfig(source="general.jsonl", share=0.25))
    samples = [*taxonomy_samples(), *texts]
    _, facts, last = mix(samples, tmp_path, config, phases=phases, base_replay=general)
    rows = [
        SourceRows(name=s.name, num_rows=s.num_samples, fraction=s.fraction, share=s.share)
        for s in facts.sources
    ]
    drawn = dict(zip([s.name for s in facts.sources], draws(rows), strict=True))
    # Three short answers, whatever is replayed beside them.
    assert drawn["facts"] == 3
    assert drawn[DOCUMENTS] == round(3 * share / (1 - share))
    documents = next(s for s in facts.sources if s.name == DOCUMENTS)
    assert [row.train_on for row in read_source(documents)] == ["everything"] * 2
    assert {s.name for s in last.sources} == {"last", "facts", "facts/documents", BASE_REPLAY}


def test_a_phase_may_want_no_texts_and_may_not_want_texts_that_are_not_there(tmp_path):
    text = sample(20, "knowledge", "text", question="", kind="document")
    without = PhaseConfig(name="only", branches=("knowledge",), documents=0.0)
    (only,) = mix([*taxonomy_samples(), text], tmp_path, phases=(without,))
    assert [source.num_samples for source in only.sources] == [4]
    wants = without.model_copy(update={"documents": 0.5})
    with pytest.raises(RecipeError, match="'only' wants documents and there are none"):
        mix(taxonomy_samples(), tmp_path, phases=(wants,))


def test_the_recipe_may_set_where_short_ends(tmp_path):
    short, long, _ = mix(taxonomy_samples(), tmp_path, MixConfig(short_answer_tokens=1))
    assert (short.sources[0].num_samples, long.sources[0].num_samples) == (1, 3)


def test_every_kept_sample_is_in_exactly_one_of_the_default_phases(tmp_path):
    samples = taxonomy_samples()
    phases = mix(samples, tmp_path)
    rows = Counter(row.id for phase in phases for row in read_source(phase.sources[0]))
    assert rows == Counter(s.id for s in samples if s.is_kept)


def test_a_skill_keeps_its_context_and_knowledge_drops_it_unless_asked(tmp_path):
    short, _, skills = mix(taxonomy_samples(), tmp_path / "drop")
    assert read_source(short.sources[0])[0].messages[0].content == "question 0?"
    assert read_source(skills.sources[0])[1].messages[0].content == "A table.\nquestion 11?"
    kept, _, _ = mix(taxonomy_samples(), tmp_path / "keep", MixConfig(knowledge_context="keep"))
    assert read_source(kept.sources[0])[0].messages[0].content == "A passage.\nquestion 0?"


def test_base_replay_is_in_every_phase_with_its_share(tmp_path):
    general = write_lines(tmp_path / "general.jsonl", chat(), chat("ho"))
    config = MixConfig(base_replay=BaseReplayConfig(source="general.jsonl", share=0.25))
    for phase in mix(taxonomy_samples(), tmp_path, config, base_replay=general):
        assert (phase.sources[-1].name, phase.sources[-1].share) == (BASE_REPLAY, 0.25)
        assert phase.sources[-1].num_samples == 2


def test_a_replayed_share_is_split_by_the_size_of_a_phases_sources(tmp_path):
    phases = (
        PhaseConfig(name="first", branches=("knowledge",), data=("mine",)),
        PhaseConfig(
            name="second",
            branches=("foundational",),
            replay=(ReplayConfig(phase="first", share=0.5),),
        ),
    )
    mine = write_lines(tmp_path / "mine.jsonl", *[chat(str(n)) for n in range(12)])
    _, second = mix(taxonomy_samples(), tmp_path, phases=phases, data={"mine": mine})
    assert {s.name: s.share for s in second.sources[1:]} == {"first": 0.125, "first/mine": 0.375}


def test_digests_go_by_content_alone(tmp_path):
    first = mix(taxonomy_samples(), tmp_path / "a")
    second = mix(taxonomy_samples(), tmp_path / "b")
    assert [p.sources[0].digest for p in first] == [p.sources[0].digest for p in second]
    raw = b"".join(CONVERSATIONS.dump_json(c) + b"\n" for c in read_source(first[0].sources[0]))
    assert first[0].sources[0].digest == hashlib.sha256(raw).hexdigest()
    changed = [*taxonomy_samples(), sample(20, "knowledge", "one")]
    assert mix(changed, tmp_path / "c")[0].sources[0].digest != first[0].sources[0].digest


def test_what_trains_a_phase_mixes_nothing_anew():
    mixed = PhaseConfig(name="a", branches=("knowledge",))
    trained = PhaseConfig(
        name="a", branches=("knowledge",), learning_rate=1e-3, num_epochs=3, select="exams"
    )
    assert trained.of_mixing() == mixed.of_mixing()
    apart = PhaseConfig(name="a", branches=("knowledge",), select="log-likelihood")
    assert apart.of_mixing() != mixed.of_mixing()  # rows are set apart


def test_a_phases_own_settings_come_before_the_trainings():
    phases = (
        PhaseConfig(name="a", branches=("knowledge",), learning_rate=1e-3, num_epochs=3),
        PhaseConfig(name="b", branches=("foundational",), batch_samples=7, select="last"),
    )
    config = TrainConfig(phase=phases, learning_rate=5e-4, batch_samples=64, warmup_steps=9)
    a, b = config.of_phases()
    assert (a.learning_rate, a.batch_samples, a.num_epochs, a.warmup_steps) == (1e-3, 64, 3, 9)
    assert (b.learning_rate, b.batch_samples, b.select) == (5e-4, 7, "last")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "'knowledge-short' would be empty: nothing was generated for knowledge; add leaves"),
        (
            [sample(1, "knowledge", rejected_because="judge: unsafe")],
            "all 1 samples of knowledge were rejected; the funnel",
        ),
        (
            [sample(n, "knowledge") for n in range(3)],
            "none of the 3 kept answers of knowledge is long .short is up to 2 tokens",
        ),
    ],
)
def test_an_empty_phase_is_an_error_that_says_why(tmp_path, samples, message):
    with pytest.raises(RecipeError, match=message):
        mix(samples, tmp_path)
    assert not list(tmp_path.glob("*phase*"))  # nothing half-made is left


def test_bad_rows_are_counted_and_listed_and_the_good_ones_used(tmp_path, caplog):
    mine = write_lines(
        tmp_path / "mine.jsonl",
        chat("q\u2028still the same row", "a", metadata='{"leaf": "x"}'),
        "{not json",
        {"messages": [{"role": "wizard", "content": "abracadabra"}]},
        {"messages": [{"role": "user", "content": "and?"}]},
        '{"messages": [{"role": "assistant", "content": "\\ud800"}]}',
        "[" * 100_000,
        chat(unmask=True),
    )
    phases = (PhaseConfig(name="only", data=("mine",)),)
    with caplog.at_level(logging.WARNING):
        config = MixConfig(max_bad_rows=0.8)
        (phase,) = mix([], tmp_path, config, phases=phases, data={"mine": mine})
    first, last = read_source(phase.sources[0])
    assert first.messages[0].content == "q\u2028still the same row"
    assert (first.train_on, last.train_on) == ("answers", "turns")
    skipped = [json.loads(x) for x in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in skipped] == [
        (2, "not JSON: Expecting property name enclosed in double quotes"),
        (3, "unknown role 'wizard'; use system, user or assistant"),
        (4, "nothing to learn: no assistant turn with text"),
        (5, "a message holds half a character (a lone surrogate)"),
        (6, "nested too deep"),
    ]
    assert "5 rows of 'mine' skipped, the first at line 2 (not JSON: " in caplog.text


def test_more_bad_rows_than_the_recipe_admits_stop_the_run(tmp_path):
    rows = [chat(f"q{i}", "a") for i in range(18)]
    mine = write_lines(tmp_path / "mine.jsonl", "{", *rows, "[1", {"messages": []})
    phases = (PhaseConfig(name="only", data=("mine",)),)
    with pytest.raises(RecipeError) as stopped:
        mix([], tmp_path, phases=phases, data={"mine": mine})
    assert str(stopped.value).startswith(f"{mine}: 3 of 21 rows of 'mine' cannot be used (line 1: ")
    assert "line 21: nothing to learn" in str(stopped.value)
    assert "`mix.max_bad_rows` above 0.1" in str(stopped.value)
    (phase,) = mix([], tmp_path, MixConfig(max_bad_rows=0.15), phases=phases, data={"mine": mine})
    assert phase.sources[0].num_samples == 18


def test_a_pretraining_row_is_taken_apart_at_its_marks(tmp_path):
    text = "<|user|>\nWhat is it?\n<|assistant|>\nA stone.<|endoftext|>"
    mine = write_lines(
        tmp_path / "mine.jsonl", {"messages": [{"role": "pretraining", "content": text}]}
    )
    phases = (PhaseConfig(name="only", data=("mine",)),)
    (row,) = read_source(mix([], tmp_path, phases=phases, data={"mine": mine})[0].sources[0])
    assert [(m.role, m.content) for m in row.messages] == [
        ("user", "What is it?"),
        ("assistant", "A stone."),
    ]
    assert row.train_on == "turns"


@pytest.mark.parametrize(("text", "why"), [("", "the file is empty"), ("7\n", "line 1: no `mess")])
def test_data_without_a_usable_row_is_an_error(tmp_path, text, why):
    (tmp_path / "mine.jsonl").write_text(text)
    phases = (PhaseConfig(name="only", data=("mine",)),)
    with pytest.raises(RecipeError, match=f"no row of 'mine' can be used; {why}"):
        mix([], tmp_path, phases=phases, data={"mine": tmp_path / "mine.jsonl"})


def test_a_missing_file_and_shares_that_fill_the_phase_are_errors(tmp_path):
    phases = (PhaseConfig(name="only", data=("mine",)),)
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        mix([], tmp_path, phases=phases, data={"mine": tmp_path / "gone.jsonl"})
    full = (
        PhaseConfig(name="a", branches=("knowledge",)),
        PhaseConfig(
            name="b", branches=("foundational",), replay=(ReplayConfig(phase="a", share=0.8),)
        ),
    )
    config = MixConfig(base_replay=BaseReplayConfig(source="x", share=0.3))
    with pytest.raises(RecipeError, match=r"'b': replayed shares add up to 1.1"):
        mix([], tmp_path, config, phases=full, base_replay=tmp_path / "x")


def test_a_name_that_would_stand_for_two_sources_is_refused(tmp_path):
    phases = (PhaseConfig(name="only", data=("only",)),)
    with pytest.raises(RecipeError, match="'only' is called as a phase or source is"):
        mix([], tmp_path, phases=phases, data={"only": tmp_path / "x"})


def test_an_unprotected_base_and_a_phase_without_replay_are_warned_of():
    assert len(warnings(MixConfig(), DEFAULT_PHASES)) == 1
    safe = MixConfig(base_replay=BaseReplayConfig(source="x"))
    assert warnings(safe, DEFAULT_PHASES) == []
    forgetful = (PhaseConfig(name="a", data=("x",)), PhaseConfig(name="b", data=("y",)))
    assert "'b' replays no earlier phase, so what 'a' taught" in warnings(safe, forgetful)[0]


def test_a_document_is_learned_whole_and_a_retrieval_sample_shows_its_passages(tmp_path):
    samples = [
        sample(0, "knowledge", "one", context="A passage."),
        sample(1, "knowledge", "one two", context="A passage."),
        sample(2, "knowledge", "word " * 50, question="", kind="document"),
        sample(3, "knowledge", "one", context="Passage 1:\nA.", kind="retrieval"),
        sample(10, "foundational"),
    ]
    short, long, _ = mix(samples, tmp_path)
    by_id = {row.id: row for row in (*read_source(short.sources[0]), *read_source(long.sources[0]))}
    assert {row.id for row in read_source(short.sources[0])} == {"s0", "s3"}
    text = by_id["s2"]
    assert text.train_on == "everything"
    assert [(m.role, m.content) for m in text.messages] == [("assistant", "word " * 50)]
    assert by_id["s0"].messages[0].content == "question 0?"
    assert by_id["s3"].messages[0].content == "Passage 1:\nA.\nquestion 3?"
    assert by_id["s3"].train_on == "answers"


def test_documents_alone_make_a_phase(tmp_path):
    phases = (PhaseConfig(name="texts", branches=("knowledge",), length="short"),)
    (texts,) = mix([sample(0, "knowledge", "a b", kind="document")], tmp_path, phases=phases)
    assert texts.sources[0].num_samples == 1


def test_rows_of_an_earlier_run_are_replayed_by_fraction_or_share(tmp_path):
    phases = (
        PhaseConfig(
            name="new",
            branches=("knowledge",),
            replay=(ReplayConfig(data="before", fraction=0.5), ReplayConfig(data="b", share=0.1)),
        ),
    )
    rows = [
        Conversation(id=f"e{n}", source="skills", messages=(Message(role="user", content="x"),))
        for n in range(4)
    ]
    b = write_lines(tmp_path / "b.jsonl", chat())
    (phase,) = mix(taxonomy_samples(), tmp_path, phases=phases, data={"before": rows, "b": b})
    assert [(s.name, s.num_samples, s.fraction, s.share) for s in phase.sources] == [
        ("new", 4, None, None),
        ("replay/before", 4, 0.5, None),
        ("replay/b", 1, None, 0.1),
    ]
    assert [row.id for row in read_source(phase.sources[1])] == ["e0", "e1", "e2", "e3"]


def test_rows_set_apart_are_never_trained_on_and_every_row_is_in_one_place(tmp_path):
    samples = [sample(n, branch) for n in range(200) for branch in ("knowledge", "foundational")]
    phases = (
        PhaseConfig(name="a", branches=("knowledge",)),
        PhaseConfig(
            name="b",
            branches=("foundational",),
            replay=(ReplayConfig(phase="a", share=0.2),),
            select="log-likelihood",
        ),
    )
    first, second = mix(samples, tmp_path / "1", MixConfig(held_out=0.25), phases=phases)
    assert first.held_out == ()
    assert [s.name for s in second.held_out] == ["b", "a"]
    for own, apart in zip(second.sources, second.held_out, strict=True):
        rows, kept_apart = read_source(own), read_source(apart)
        assert len(rows) + len(kept_apart) == 200
        assert not {r.id for r in rows} & {r.id for r in kept_apart}
        assert 25 < len(kept_apart) < 75
    assert second.sources[1].path == first.sources[0].path
    again = mix(samples, tmp_path / "2", MixConfig(held_out=0.25), phases=phases)[1]
    assert [s.digest for s in again.held_out] == [s.digest for s in second.held_out]


def test_nothing_is_set_apart_where_no_phase_asks_for_it(tmp_path):
    mix([sample(n, "knowledge") for n in range(50)], tmp_path, phases=(ONLY_KNOWLEDGE,))
    assert not list(tmp_path.glob("held-out*"))
