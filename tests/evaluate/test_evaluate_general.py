import pytest
from tiny import make_tokenizer

from feldspar.config import GeneralConfig
from feldspar.evaluate.examinee import GivenAnswer
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.marks import GeneralAnswer, Marks, marks_of
from feldspar.evaluate.general.questions import EXAM, GeneralItem, cannot_be_asked, general_items
from feldspar.evaluate.general.scores import (
    BEYOND_CHANCE,
    KEPT,
    TO_RIGHT,
    TO_WRONG,
    Sitting,
    general_scores,
    written_items,
)
from feldspar.evaluate.general.selecting import GeneralKept, LearnedAndKept
from feldspar.records import AGREEMENT, FLIPS, Checkpoint
from feldspar.tokens.count import TokenCounter

NUM_ITEMS = 100
ITEMS = tuple(
    GeneralItem(
        id=f"sums/{n}", kind="sums" if n < 60 else "colors", ask=(f"{n}?", f"Say {n}."),
        match="number", accepted=(str(n),),
    )
    for n in range(NUM_ITEMS)
)  # fmt: skip
RIGHT, WRONG = Marks(True, True), Marks(False, False)
FIRST, SECOND = Marks(True, False), Marks(False, True)


class Parrot:
    """Says what each question is given, and counts how often it is asked."""

    name, template, folder_name = "base", "no template", "parrot"

    def __init__(self, key="parrot", said=lambda question: "1"):
        self.key, self.said, self.num_asked = key, said, 0

    def answer(self, questions, how, progress):
        self.num_asked += len(questions)
        assert how.temperature == 0
        return [GivenAnswer(self.said(q.messages[0].content), True) for q in questions]


def sitting(own, base, **more):
    items = ITEMS[: len(base)]
    ids = [item.id for item in items]
    base_marks = dict(zip(ids, base, strict=True))
    own_marks = base_marks if own is None else dict(zip(ids, own, strict=True))
    return Sitting(
        checkpoint="skills", items=items, base=base_marks, own=own_marks, settings="",
        num_resamples=200, seed=1,
    )  # fmt: skip


def scored(own, base):
    paths = {EXAM: "all", KEPT: "kept"}
    return {(s.exam, s.metric): s for s in general_scores(sitting(own, base), paths)}


def test_kept_are_the_items_that_the_base_has_right_in_both_wordings():
    base = [RIGHT] * 40 + [FIRST] * 10 + [WRONG] * 50
    own = [RIGHT] * 30 + [SECOND] * 10 + [RIGHT] * 5 + [WRONG] * 55
    found = scored(own, base)
    assert (found[KEPT, "accuracy"].value, found[KEPT, "accuracy"].num_items) == (0.75, 40)
    assert (found[EXAM, "accuracy"].value, found[EXAM, "accuracy"].num_items) == (0.35, 100)
    assert found[KEPT, "accuracy"].interval.low < 0.75 < found[KEPT, "accuracy"].interval.high
    assert found[EXAM, AGREEMENT].value == 0.9
    assert found[f"{KEPT}: sums", "accuracy"].num_items == 40
    assert found[f"{EXAM}: colors", "accuracy"].num_items == 40


def test_a_base_beside_itself_keeps_all_and_has_no_flips():
    found = scored(None, [RIGHT] * 40 + [WRONG] * 60)
    assert found[KEPT, "accuracy"].value == 1
    assert not [exam for exam, metric in found if metric == FLIPS]


def test_flips_are_counted_both_ways_among_answers():
    # 90 of 200 answers are right; 10 of them are lost, and 5 of the other 110 gained.
    base = [RIGHT] * 40 + [FIRST] * 10 + [WRONG] * 50
    own = [RIGHT] * 30 + [FIRST] * 15 + [SECOND] * 5 + [WRONG] * 50
    found = scored(own, base)
    lost, gained = found[TO_WRONG, FLIPS], found[TO_RIGHT, FLIPS]
    assert (lost.num_items, round(lost.value * lost.num_items)) == (90, 15)
    assert (gained.num_items, round(gained.value * gained.num_items)) == (110, 5)


def test_what_never_happened_has_an_interval_all_the_same():
    found = scored([RIGHT] * 40 + [WRONG] * 60, [RIGHT] * 40 + [WRONG] * 60)
    lost, beyond = found[TO_WRONG, FLIPS], found[TO_WRONG + BEYOND_CHANCE, FLIPS]
    assert (lost.value, beyond.value) == (0, 0)
    assert 0.05 < lost.interval.high < 0.15
    assert -0.15 < beyond.interval.low < -0.05
    one = scored([WRONG] + [RIGHT] * 39 + [WRONG] * 60, [RIGHT] * 40 + [WRONG] * 60)
    assert one[TO_WRONG + BEYOND_CHANCE, FLIPS].interval.low <= 0


def test_luck_alone_is_no_loss_beyond_chance():
    """Forty items are known to both; sixteen are right in half of all cases, without connection."""
    lucky = (RIGHT, FIRST, SECOND, WRONG)
    base = [RIGHT] * 40 + [marks for marks in lucky for _ in lucky] + [WRONG] * 40
    own = [RIGHT] * 40 + [marks for _ in lucky for marks in lucky] + [WRONG] * 40
    found = scored(own, base)
    assert found[KEPT, "accuracy"].value == 41 / 44
    assert found[TO_WRONG, FLIPS].value == pytest.approx(8 / 96)
    assert found[TO_RIGHT, FLIPS].value == pytest.approx(8 / 96)
    for exam in (TO_WRONG, TO_RIGHT):
        beyond = found[exam + BEYOND_CHANCE, FLIPS]
        assert beyond.value == pytest.approx(0)
        assert beyond.interval.low < 0 < beyond.interval.high


def test_what_is_lost_is_lost_beyond_chance():
    base = [RIGHT] * 50 + [WRONG] * 50
    own = [RIGHT] * 30 + [WRONG] * 20 + [RIGHT] * 10 + [WRONG] * 40
    found = scored(own, base)
    lost, gained = (found[exam + BEYOND_CHANCE, FLIPS] for exam in (TO_WRONG, TO_RIGHT))
    assert (lost.value, gained.value) == (0.4, 0.2)
    # The two answers to an item are no two witnesses: as wide as that of 50 items, not of 100.
    assert lost.interval.high - lost.interval.low > 0.22


def test_answers_are_asked_for_once_and_right_by_the_matcher(tmp_path):
    parrot = Parrot(said=lambda question: question.strip("Say ?."))
    how = {"max_new_tokens": 8, "cache_path": tmp_path}
    answers = general_answers(parrot, ITEMS, **how)
    assert answers[7] == GeneralAnswer(item="sums/7", texts=("7", "7"))
    assert set(marks_of(ITEMS, answers).values()) == {RIGHT}
    assert general_answers(Parrot(), ITEMS, **how) == answers
    assert parrot.num_asked == 2 * NUM_ITEMS
    for other in (Parrot("another model"), Parrot()):
        more = {} if other.key != "parrot" else {"max_new_tokens": 9}
        general_answers(other, ITEMS, **(how | more))
        assert other.num_asked == 2 * NUM_ITEMS


def test_a_damaged_cache_is_told_and_made_anew(tmp_path, caplog):
    how = {"max_new_tokens": 8, "cache_path": tmp_path}
    answers = general_answers(Parrot(), ITEMS, **how)
    (path,) = tmp_path.rglob("*.jsonl.zst")
    path.write_bytes(path.read_bytes()[:-9])
    again = Parrot()
    assert general_answers(again, ITEMS, **how) == answers
    assert again.num_asked == 2 * NUM_ITEMS
    assert str(path) in caplog.text
    assert "damaged" in caplog.text
    assert list(tmp_path.rglob("*.part*")) == []


def test_written_items_show_both_wordings():
    answers = [GeneralAnswer(item="sums/0", texts=("0", "2"))]
    (item,) = written_items(ITEMS[:1], answers, {"sums/0": FIRST})
    assert (item.question, item.said, item.value) == ("0?\nSay 0.", "0\n2", 0.0)


class Learned:
    key, metric = "learned", "accuracy"

    def values(self, checkpoint):
        return {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_learned_and_kept_weigh_as_the_recipe_says(tmp_path, weight):
    marks = {"base": [RIGHT] * 20 + [WRONG] * 80, "taught": [RIGHT] * 5 + [WRONG] * 95}
    kept = GeneralKept(
        Checkpoint(path="", digest="base"), GeneralConfig(), student=None, cache_path=tmp_path
    )
    kept._items = ITEMS
    ids = [item.id for item in ITEMS]
    kept._marks = lambda c: dict(zip(ids, marks[c.digest], strict=True))
    assert sum(kept.values(Checkpoint(path="", digest="taught")).values()) == 5
    values = LearnedAndKept(Learned(), kept, weight).values(Checkpoint(path="", digest="taught"))
    assert len(values) == 24
    assert sum(values.values()) / 24 == pytest.approx((1 - weight) * 0.75 + weight * 0.25)


def test_a_tokenizer_that_cannot_write_the_questions_says_so(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert cannot_be_asked(TokenCounter(tmp_path)) == ""
    assert len(general_items()) > 600
