"""What phases train on leaves a run as rows that a run takes in again, the same."""

import json
from pathlib import Path

import pytest
from test_mix_phases import chat, mix, read_source, sample, taxonomy_samples, write_lines

from feldspar.config import DEFAULT_PHASES, BaseReplayConfig, MixConfig, PhaseConfig, ReplayConfig
from feldspar.errors import RunError
from feldspar.mix.export import export_phases
from feldspar.records import Conversation
from feldspar.runs import read_rows

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello\u2028there"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "tscüß"},
]
OWN = (
    {"messages": TURNS[:3], "is_cut": True, "id": "cut"},
    {"text": "Plain text."},
    {"messages": TURNS, "unmask": True, "id": "mine"},
)


def exported(folder: Path, name: str) -> list[dict[str, object]]:
    (path,) = folder.glob(f"phase-*-{name}.jsonl")
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def content(row: Conversation) -> tuple[object, ...]:
    return row.id, row.messages, row.train_on


def test_what_is_exported_trains_the_same_rows(tmp_path: Path) -> None:
    phases = (
        PhaseConfig(name="one", branches=("knowledge",), data=("mine",)),
        PhaseConfig(
            name="two",
            branches=("compositional", "foundational"),
            replay=(ReplayConfig(phase="one", fraction=1.0),),
        ),
    )
    samples = [*taxonomy_samples(), sample(20, "knowledge", "A document.", kind="document")]
    mine = write_lines(tmp_path / "mine.jsonl", *OWN)
    made = mix(samples, tmp_path / "a", phases=phases, data={"mine": mine})
    out = tmp_path / "out"
    done = export_phases(made, out, name="demo", seed=1)
    assert [sum(phase.num_rows.values()) for phase in done] == [8, 10]
    for phase in made:
        again = PhaseConfig(name="again", data=("back",))
        (path,) = out.glob(f"phase-*-{phase.name}.jsonl")
        (back,) = mix([], tmp_path / phase.name, phases=[again], data={"back": path})
        trained = [content(row) for source in phase.sources for row in read_source(source)]
        assert [content(row) for row in read_source(back.sources[0])] == trained
    rows = exported(out, "two")
    assert [(r["source"], r["is_replay"]) for r in rows[:3]] == [
        ("two", False),
        ("two", False),
        ("one", True),
    ]
    assert sum(r["unmask"] is True for r in rows) == 3
    card = (out / "README.md").read_text()
    assert "| two | one/mine | yes | 3 |" in card
    with pytest.raises(RunError, match="exists"):
        export_phases(made, out, name="demo", seed=1)


def test_replay_is_exported_as_an_epoch_draws_it(tmp_path: Path) -> None:
    general = write_lines(tmp_path / "general.jsonl", *(chat(str(n)) for n in range(3)))
    made = mix(
        [sample(n, "foundational") for n in range(30)],
        tmp_path / "a",
        MixConfig(base_replay=BaseReplayConfig(source="x", share=0.25)),
        phases=[PhaseConfig(name="skills", branches=("foundational",))],
        base_replay=general,
    )
    export_phases(made, tmp_path / "out", name="demo", seed=3)
    replayed = [row["id"] for row in exported(tmp_path / "out", "skills") if row["is_replay"]]
    # A quarter of forty; the three rows go round.
    assert len(replayed) == 10
    assert {replayed.count(f"base replay:{n}") for n in (1, 2, 3)} == {3, 4}


def test_rows_that_are_fewer_than_noted_are_told(tmp_path: Path) -> None:
    made = mix(taxonomy_samples(), tmp_path / "a", phases=DEFAULT_PHASES)
    path = Path(made[0].sources[0].path)
    path.write_bytes(Path(made[1].sources[0].path).read_bytes())
    with pytest.raises(RunError, match=r"damaged \(it has 1 rows, not 3\)"):
        export_phases(made, tmp_path / "out", name="demo", seed=1)
    assert not (tmp_path / "out").exists()


def test_no_bit_of_a_phases_file_changes_its_rows_without_a_word(tmp_path: Path) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", *OWN)
    phases = (PhaseConfig(name="one", data=("mine",)),)
    (made,) = mix([], tmp_path / "a", phases=phases, data={"mine": mine})
    path = Path(made.sources[0].path)
    whole, rows = path.read_bytes(), list(read_rows(path, Conversation))
    assert rows
    told = []
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert list(read_rows(path, Conversation)) == rows
        except RunError as error:
            told.append(str(error))
    assert len(told) > 0.9 * len(whole)
    assert all(str(path) in one for one in told)


def test_a_phases_own_texts_are_no_replay(tmp_path: Path) -> None:
    """They are drawn as a share of its rows, as what is replayed is."""
    texts = [sample(9, "knowledge", "A text.", question="", kind="document")]
    wanted = PhaseConfig(name="facts", branches=("knowledge",), documents=0.5)
    made = mix([*taxonomy_samples(), *texts], tmp_path / "a", phases=[wanted])
    export_phases(made, tmp_path / "out", name="demo", seed=3)
    rows = exported(tmp_path / "out", "facts")
    assert {row["source"] for row in rows} == {"facts", "documents"}
    assert not any(row["is_replay"] for row in rows)
    assert "| yes |" not in (tmp_path / "out" / "README.md").read_text()
