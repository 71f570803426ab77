import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.config import PreferConfig
from feldspar.prefer.methods import METHODS, method_of
from feldspar.prefer.methods.best_of_n import BestOfN
from feldspar.prefer.methods.dpo import DPO
from feldspar.prefer.picks import mean_by_prompt, survey
from feldspar.records import Candidate


def candidate(prompt, draw, reward, text="x", ended=True, num_tokens=3):
    return Candidate(
        prompt=prompt, draw=draw, text=text, ended=ended, num_tokens=num_tokens, reward=reward
    )


rewards_of_prompts = st.lists(
    st.lists(st.floats(-50, 50), min_size=2, max_size=6), min_size=1, max_size=6
)


@given(rewards_of_prompts)
def test_the_best_is_never_below_the_random_pick_nor_the_mean(groups):
    candidates = [
        candidate(f"p{number}", draw, reward)
        for number, rewards in enumerate(groups)
        for draw, reward in enumerate(rewards)
    ]
    picks, figures = survey(candidates, BestOfN(), seed=1)
    assert figures.best_reward >= figures.random_reward - 1e-9
    for (tuned,), (control,) in picks:
        assert tuned.chosen.reward >= control.chosen.reward
        own = [c.reward for c in candidates if c.prompt == tuned.chosen.prompt]
        assert tuned.chosen.reward == max(own)
        assert control.chosen.prompt == tuned.chosen.prompt
        assert tuned.rejected is None


def test_prompts_without_a_choice_are_dropped_and_counted():
    picks, figures = survey(
        [
            candidate("same", 0, 2.0),
            candidate("same", 1, 2.0),
            candidate("p", 0, 1),
            candidate("p", 1, 4),
        ],
        BestOfN(),
        seed=1,
    )
    assert [pick.tuned[0].chosen.prompt for pick in picks] == ["p"]
    assert (figures.equal_share, figures.num_prompts, figures.num_picked) == (0.5, 2, 1)
    assert figures.mean_reward == pytest.approx(9 / 4)


def test_an_answer_that_was_cut_off_is_never_tuned_on():
    drawn = [candidate("p", 0, 9.0, ended=False), candidate("p", 1, 1.0), candidate("p", 2, 0.5)]
    picks, figures = survey(drawn, BestOfN(), seed=1)
    assert picks[0].tuned[0].chosen.draw == 1
    assert picks[0].control[0].chosen.ended
    assert figures.unfinished_share == pytest.approx(1 / 3)
    cut_off = [candidate("q", 0, 9.0, ended=False), candidate("q", 1, 1.0, ended=False)]
    assert survey(cut_off, BestOfN(), seed=1).picks == []


def test_the_control_draws_evenly_and_the_same_each_time():
    drawn = [candidate(f"p{n}", draw, draw) for n in range(600) for draw in range(3)]
    picks = survey(drawn, BestOfN(), seed=1).picks
    counts = [sum(pick.control[0].chosen.draw == draw for pick in picks) for draw in range(3)]
    assert all(150 < count < 250 for count in counts)
    assert survey(drawn, BestOfN(), seed=1).picks == picks
    assert survey(drawn, BestOfN(), seed=2).picks != picks


def test_lengths_and_distinctness_are_told():
    drawn = [
        candidate("p", 0, 1.0, "a", num_tokens=1),
        candidate("p", 1, 2.0, "a", num_tokens=2),
        candidate("p", 2, 3.0, "bb", num_tokens=3),
        candidate("p", 3, 4.0, "ccc", num_tokens=4),
    ]
    figures = survey(drawn, BestOfN(), seed=1).figures
    assert figures.length_correlation == pytest.approx(1.0)
    assert (figures.best_tokens, figures.mean_tokens) == (4.0, 2.5)
    assert figures.distinct_share == 0.75
    assert mean_by_prompt(drawn) == {"p": 2.5}


def test_dpo_pairs_the_best_with_a_worse_one_and_its_control_by_a_coin():
    drawn = [candidate(f"p{n}", draw, float(draw)) for n in range(400) for draw in range(3)]
    picks = survey(drawn, DPO(None), seed=1).picks
    others = []
    for (tuned,), (control,) in picks:
        assert tuned.chosen.draw == 2
        assert {control.chosen, control.rejected} == {tuned.chosen, tuned.rejected}
        others.append(tuned.rejected.draw)
    assert 150 < sum(other == 0 for other in others) < 250
    assert 150 < sum(control == tuned for (tuned,), (control,) in picks) < 250
    # Of two answers that are equally good none is the worse one: nothing is picked.
    ended = [candidate("q", 0, 2.0), candidate("q", 1, 2.0), candidate("q", 2, 0.0, ended=False)]
    found = survey(ended, DPO(None), seed=1)
    assert found.picks == []
    assert (found.figures.num_picked, found.figures.num_prompts) == (0, 1)


def test_every_method_of_a_recipe_has_its_file():
    assert sorted(METHODS) == sorted(PreferConfig.model_fields["method"].annotation.__args__)
    for name in METHODS:
        method_of(PreferConfig(aligned="a", base="b", method=name)).rows(
            [candidate("p", 0, 1)], "k"
        )


def test_what_a_method_does_not_know_is_an_error_of_the_recipe():
    with pytest.raises(ValueError, match=r'dpo_beta says nothing to method = "best-of-n": set'):
        PreferConfig(aligned="a", base="b", dpo_beta=0.1)
    assert PreferConfig(aligned="a", base="b", dpo_beta=0.5, method="dpo").dpo_beta == 0.5
