from feldspar.config import DEFAULT_PHASES, BaseReplayConfig, MixConfig, PhaseConfig, ReplayConfig
from feldspar.mix.estimate import PhaseRows, estimate, expected_rows


def test_shares_are_part_of_the_whole():
    phases = (
        PhaseConfig(name="a", branches=("knowledge",)),
        PhaseConfig(
            name="b", branches=("foundational",), replay=(ReplayConfig(phase="a", share=0.25),)
        ),
    )
    config = MixConfig(base_replay=BaseReplayConfig(source="x", share=0.25))
    rows = expected_rows(phases, config, {"knowledge": 300, "foundational": 100}, {})
    assert rows[0] == PhaseRows(name="a", own=300, replayed=0, general=100)
    assert rows[1] == PhaseRows(name="b", own=100, replayed=50, general=50)
    assert rows[1].total == 200


def test_the_papers_volumes_give_its_steps():
    stated = (630_000, 230_000, 550_000)
    phases = [
        phase.model_copy(update={"num_samples": num_samples, "replay": ()})
        for phase, num_samples in zip(DEFAULT_PHASES, stated, strict=True)
    ]
    rows = expected_rows(phases, MixConfig(), {}, {})
    # METHOD.md section 3: 165, 60 and 144 steps an epoch at 3,840, last batch partial.
    assert [-(-phase.total // 3840) for phase in rows] == [165, 60, 144]


def test_replayed_rows_are_written_once():
    counts = {"knowledge": 100, "foundational": 50, "compositional": 50}
    rows = expected_rows(DEFAULT_PHASES, MixConfig(), counts, {})
    assert [phase.total for phase in rows] == [50, 100, 200]
    assert estimate(rows).disk_bytes == estimate([PhaseRows("all", 200, 0, 0)]).disk_bytes


def test_a_phase_that_says_how_many_documents_it_wants_draws_so_many():
    counts, texts = {"knowledge": 1050}, {"knowledge": 50}
    wanted = {None: 1050, 0.5: 2000, 0.0: 1000}
    for documents, total in wanted.items():
        phase = PhaseConfig(name="a", branches=("knowledge",), documents=documents)
        assert expected_rows([phase], MixConfig(), counts, {}, texts)[0].total == total
    # Texts are not halved by length; what is replayed are the rows that were written.
    short = PhaseConfig(name="a", branches=("knowledge",), length="short", documents=0.5)
    again = PhaseConfig(
        name="b", branches=("compositional",), replay=(ReplayConfig(phase="a", fraction=1.0),)
    )
    found = expected_rows([short, again], MixConfig(), counts, {}, texts)
    assert found == [PhaseRows("a", 1000, 0, 0), PhaseRows("b", 0, 550, 0)]
