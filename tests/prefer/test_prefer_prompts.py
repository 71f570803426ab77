import random
from collections import Counter

import pytest

from feldspar.config import PreferConfig
from feldspar.errors import RecipeError
from feldspar.prefer.prompts import draw_prompts, prompts_of, prompts_of_round
from feldspar.records import Message, Prompt, Sample

CONFIG = PreferConfig(aligned="a", base="b")


def sample(number, branch, question=None, **changes):
    return Sample(
        id=f"s{number}",
        leaf=f"{branch}/leaf",
        branch=branch,
        question=question or f"question {number}?",
        answer="a",
        **changes,
    )


def prompts(source, num_prompts):
    return [
        Prompt(id=f"{source}-{n}", source=source, messages=(Message(role="user", content="?"),))
        for n in range(num_prompts)
    ]


def test_only_kept_skills_are_asked_each_once_with_their_context():
    samples = [
        sample(1, "knowledge"),
        sample(2, "foundational"),
        sample(3, "compositional", context="A table."),
        sample(4, "foundational", rejected_because="judge: unsafe"),
        sample(5, "foundational", question="question 2?"),
    ]
    found = list(prompts_of(samples, CONFIG))
    assert [p.id for p in found] == ["s2", "s3"]
    assert found[1].messages[0].content == "A table.\nquestion 3?"
    assert found[1].source == "compositional/leaf"


def test_a_large_source_does_not_crowd_out_a_small_one():
    drawn = draw_prompts([*prompts("large", 5000), *prompts("small", 300)], 400, seed=1)
    counts = Counter(p.source for p in [*drawn.tuned, *drawn.held_out])
    assert 160 <= counts["small"] <= 240
    assert sum(counts.values()) == 400


def test_held_out_prompts_are_apart_and_everything_is_used_when_there_is_little():
    tuned, held_out = draw_prompts([*prompts("a", 15), *prompts("b", 5)], 1000, seed=1)
    assert (len(tuned), len(held_out)) == (18, 2)
    assert len({p.id for p in [*tuned, *held_out]}) == 20


def test_the_draw_does_not_depend_on_the_order_of_prompts():
    given = [*prompts("a", 30), *prompts("b", 30)]
    shuffled = random.Random(3).sample(given, len(given))
    assert draw_prompts(given, 40, seed=1) == draw_prompts(shuffled, 40, seed=1)
    assert draw_prompts(given, 40, seed=1) != draw_prompts(given, 40, seed=2)


@pytest.mark.parametrize("num_prompts", [0, 1])
def test_too_few_prompts_are_an_error(num_prompts):
    with pytest.raises(RecipeError, match=f"needs at least 2 prompts, got {num_prompts}"):
        draw_prompts(prompts("a", num_prompts), 10, seed=1)


def asked_in(rounds, **changes):
    drawn = draw_prompts([*prompts("a", 90), *prompts("b", 90)], 100, seed=1).tuned
    config = PreferConfig(**{"aligned": "a", "base": "b", **changes})
    assert len(drawn) == 90
    return [prompts_of_round(drawn, number, config, seed=1) for number in range(1, rounds + 1)]


def ids(asked):
    return [prompt.id for prompt in asked.prompts]


def test_without_a_number_every_round_asks_all():
    first, second = asked_in(2)
    assert ids(first) == ids(second)
    assert (len(ids(first)), second.num_again) == (90, 0)


def test_rounds_ask_others_in_turn_and_top_up_from_earlier_ones():
    rounds = asked_in(3, round_prompts=30)
    assert [r.num_again for r in rounds] == [0, 0, 0]
    assert len({i for r in rounds for i in ids(r)}) == 90
    first, second, third = asked_in(3, round_prompts=30, top_up=0.2)
    assert (second.num_again, third.num_again) == (6, 6)
    assert len(set(ids(second)) & set(ids(first))) == 6
    assert len(set(ids(third)) & {*ids(first), *ids(second)}) == 6
    assert all(len(set(ids(r))) == 30 for r in (first, second, third))


def test_where_new_prompts_run_out_earlier_ones_are_asked_again():
    *_, third, fourth = asked_in(4, round_prompts=40)
    assert (third.num_again, fourth.num_again) == (30, 40)
    assert len(set(ids(fourth))) == 40
    (alone,) = asked_in(1, round_prompts=400)
    assert len(ids(alone)) == 90


def test_a_top_up_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"give that too; without it every round"):
        PreferConfig(aligned="a", base="b", top_up=0.1)
