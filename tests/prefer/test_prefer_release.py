"""Whether a round is released: better than the start, and nothing lost of what is to be kept."""

from feldspar.prefer.release import Standing, choose_release


def marks(*values: float) -> dict[str, float]:
    return {str(i): value for i, value in enumerate(values)}


def standing(reward: float, rating: float = 5.0, num_kept: int = 40) -> Standing:
    """Rewards and ratings that differ a little from item to item."""
    return Standing(
        measures={
            "reward": marks(*(reward + i % 3 / 10 for i in range(20))),
            "mt-bench": marks(*(rating + i % 2 for i in range(20))),
        },
        kept=marks(*(float(i < num_kept) for i in range(50))),
    )


START = standing(1.0)


def test_the_best_of_the_rounds_that_beat_the_start_is_released():
    chosen = choose_release(START, [standing(1.5), standing(1.8), standing(1.2)], ["reward"])
    assert (chosen.round, chosen.withheld) == (1, ["", "", ""])


def test_the_start_is_released_where_no_round_beats_it():
    chosen = choose_release(START, [standing(1.0), standing(0.4)], ["reward"])
    assert chosen.round is None
    assert chosen.withheld[1].startswith("reward -0.600 to the start")


def test_a_gain_within_its_standard_error_is_none():
    rewards = marks(*(1.0 + (3.0 if i == 0 else 0.0) for i in range(20)))
    start = Standing(measures={"reward": marks(*[1.0] * 20)}, kept={})
    after = Standing(measures={"reward": rewards}, kept={})
    assert choose_release(start, [after], ["reward"]).round is None


def test_what_is_named_must_all_be_better_and_the_first_ranks():
    rounds = [standing(1.9, 4.0), standing(1.2, 6.0), standing(1.4, 5.5)]
    assert choose_release(START, rounds, ["reward"]).round == 0
    assert choose_release(START, rounds, ["mt-bench"]).round == 1
    assert choose_release(START, rounds, ["reward", "mt-bench"]).round == 2
    assert choose_release(START, rounds, ["mt-bench", "reward"]).round == 1


def test_a_round_that_lost_what_is_to_be_kept_is_refused():
    chosen = choose_release(START, [standing(1.9, num_kept=25), standing(1.2)], ["reward"])
    assert chosen.round == 1
    assert chosen.withheld[0].startswith("kept -0.300 [")
    # Two items of fifty are noise.
    assert choose_release(START, [standing(1.9, num_kept=38)], ["reward"]).round == 0


def test_questions_that_a_judge_left_unread_are_left_out():
    rated = dict(START.measures["mt-bench"])
    after = {q: rating + 1 for q, rating in rated.items() if q != "3"}
    found = Standing(measures={"mt-bench": after}, kept={})
    start = Standing(measures={"mt-bench": rated}, kept={})
    assert choose_release(start, [found], ["mt-bench"]).round == 0
