"""The embedded teacher against the world's truth, at the rates it was given."""

import math
import random
import re
from collections.abc import Iterator
from functools import cache

import pytest

from feldspar.config import ErrorRates
from feldspar.records import Message, Sample
from feldspar.serve import ChatRequest
from feldspar.world import judge
from feldspar.world.brain import Brain
from feldspar.world.prose import ask, describe, write_document
from feldspar.world.questions import QuestionPools
from feldspar.world.sections import Block, read_blocks, write_blocks
from feldspar.world.skills import COMPOSITIONAL, FOUNDATIONAL, draw_grounded, is_held_out
from feldspar.world.truth import World

WORLD = World.make(1, 40, 20)
RIGHT = Brain(WORLD, ErrorRates())
SKILLS = (*FOUNDATIONAL, *COMPOSITIONAL)


@cache
def exam_questions() -> set[str]:
    return {s.question for exam in WORLD.exams().values() for s in exam if not s.context}


def prompt(**sections: str) -> str:
    """Sections in the order given: prompt(how_many="3") has one, `### How many`."""
    parts = [f"### {k.replace('_', ' ').capitalize()}\n{v}\n" for k, v in sections.items()]
    return "\n".join(parts)


def reply(brain: Brain, stage: str, text: str, seed: int = 0) -> str:
    messages = (Message(role="user", content=text),)
    request = ChatRequest(model="m", messages=messages, stage=stage, seed=seed)
    return brain.complete(request).choices[0].text


def document(entities: tuple = WORLD.new[:6]) -> str:
    return write_document("The people", entities, random.Random(1))


def examples_of(kind: str, count: int = 3) -> str:
    pool = QuestionPools(WORLD, seed=99).of_kinds((kind,))[:count]
    return write_blocks(
        Block(question=s.question, answer=s.answer, context=s.context) for s in pool
    )


RIGHT_POOL = QuestionPools(WORLD, 0).about(document(), 0)


def ask_pairs(brain: Brain, calls: int, per_call: int = 4) -> Iterator[list[Block]]:
    text = prompt(task="People", document=document(), examples="", how_many=str(per_call))
    for seed in range(calls):
        yield read_blocks(reply(brain, "knowledge-pairs", text, seed))


def as_sample(block: Block, context: str | None = None) -> Sample:
    return Sample(
        id="x",
        leaf="x",
        branch="knowledge",
        question=block.question,
        answer=block.answer,
        context=context,
    )


def assert_share(hits: int, total: int, rate: float) -> None:
    """Within four standard errors of the rate."""
    assert abs(hits - total * rate) <= 4 * math.sqrt(total * rate * (1 - rate)) + 0.5, hits / total


def test_pairs_of_a_document_are_right_new_and_of_both_lengths() -> None:
    blocks = [block for blocks in ask_pairs(RIGHT, 25) for block in blocks]
    assert len(blocks) == 100
    assert len({block.question for block in blocks}) == 100
    assert all(judge.world_truth(WORLD, as_sample(block)) for block in blocks)
    num_long = sum(len(block.answer.split()) > 12 for block in blocks)
    assert 28 <= num_long <= 36
    assert not {block.question for block in blocks} & exam_questions()


def test_every_fact_of_a_document_is_asked_before_any_is_asked_twice() -> None:
    blocks = [block for blocks in ask_pairs(RIGHT, 9) for block in blocks]
    short = [block.answer for block in blocks if len(block.answer.split()) <= 12]
    assert len(set(short)) == len(short) == 24


@pytest.mark.parametrize("kind", SKILLS)
def test_new_questions_are_of_the_examples_skill_and_in_no_exam(kind: str) -> None:
    text = prompt(task="t", examples=examples_of(kind), how_many="5")
    asked = [
        block.question
        for seed in range(6)
        for block in read_blocks(reply(RIGHT, "skill-questions", text, seed))
    ]
    assert len(set(asked)) == len(asked) == 30
    solutions = [WORLD.solve(question) for question in asked]
    assert {s.kind for s in solutions if s is not None} == {kind}
    assert None not in solutions
    allowed = {e.name for e in (*WORLD.set_a(WORLD.new), *WORLD.set_a(WORLD.old_for_replay))}
    for solution in solutions:
        assert solution is not None
        assert {fact.name for fact in solution.facts} <= allowed
        if kind in COMPOSITIONAL:
            assert not WORLD.is_exam_pair(solution)
    # Tools are a table of 24: those questions stand in the exam too, and no others do.
    assert kind == "tool" or not set(asked) & exam_questions()


def test_a_held_out_operand_is_never_asked_about() -> None:
    for kind in ("sort", "smallest", "add"):
        for solution in QuestionPools(WORLD, 0).of_kinds((kind,)):
            assert not is_held_out(kind, tuple(re.findall(r"\d+", solution.question)))


def test_grounded_contexts_and_their_questions_fit() -> None:
    examples = examples_of("grounded")
    text = prompt(task="t", examples=examples, how_many="3")
    contexts = [b.context for b in read_blocks(reply(RIGHT, "skill-context", text))]
    assert len(set(contexts)) == 3
    for context in contexts:
        text = prompt(task="t", examples=examples, context=context, how_many="3")
        blocks = read_blocks(reply(RIGHT, "skill-questions", text))
        assert len({b.question for b in blocks}) == 3
        for block in blocks:
            text = prompt(task="t", examples=examples, context=context, question=block.question)
            answer = reply(RIGHT, "skill-answer", text)
            assert WORLD.is_right(block.question, answer, context)
    assert not {s.context for s in WORLD.exams()["compositional (unseen pairs)"]} & set(contexts)


def test_rates_of_pairs_hold() -> None:
    rates = ErrorRates(wrong_fact=0.2, unfaithful=0.1, unsafe=0.05, off_format=0.1)
    calls = list(ask_pairs(Brain(WORLD, rates), 400, per_call=5))
    assert_share(sum(not blocks for blocks in calls), 400, 0.1)
    blocks = [block for blocks in calls for block in blocks]
    unsafe = [block for block in blocks if judge.is_unsafe(block.question)]
    assert_share(len(unsafe), len(blocks), 0.05)
    safe = [block for block in blocks if not judge.is_unsafe(block.question)]
    claims = sum(
        judge.has_extra_claim(s, b.answer)
        for b in safe
        if (s := WORLD.solve(b.question)) is not None
    )
    assert_share(claims, len(safe), 0.1)
    right = sum(judge.world_truth(WORLD, as_sample(block)) is True for block in blocks)
    assert_share(right, len(blocks), 0.95 * 0.9 * 0.8)


def test_duplicate_pairs_repeat_an_example_that_the_document_answers() -> None:
    brain = Brain(WORLD, ErrorRates(duplicate=0.3))
    known = [Block(question=s.question, answer=s.answer) for s in RIGHT_POOL[40:42]]
    far = WORLD.solve(ask(WORLD.new[15].name, "home", 2))
    assert far is not None
    shown = write_blocks([*known, Block(question=far.question, answer=far.answer)])
    text = prompt(task="t", document=document(), examples=shown, how_many="4")
    asked = [
        block.question
        for seed in range(8)
        for draw in range(12)
        for block in read_blocks(reply(brain, "knowledge-pairs", f"{text}\n{draw}", seed))
    ]
    assert far.question not in asked
    assert_share(sum(q in {b.question for b in known} for q in asked), len(asked), 0.3)


def test_rates_of_questions_hold() -> None:
    brain = Brain(WORLD, ErrorRates(duplicate=0.3, unsafe=0.1))
    examples = examples_of("older")
    known = {block.question for block in read_blocks(examples)}
    text = prompt(task="t", examples=examples, how_many="5")
    asked = [
        block.question
        for seed in range(200)
        for block in read_blocks(reply(brain, "skill-questions", text, seed))
    ]
    assert len(asked) == 1000
    assert_share(sum(judge.is_unsafe(question) for question in asked), 1000, 0.1)
    assert_share(sum(question in known for question in asked), 1000, 0.3 * 0.9)


@pytest.mark.parametrize("kind", SKILLS)
def test_answers_are_wrong_at_their_rate_and_the_judge_sees_it(kind: str) -> None:
    brain = Brain(WORLD, ErrorRates(wrong_fact=0.3))
    pool = QuestionPools(WORLD, 0).of_kinds((kind,))[:40]
    wrong = 0
    for draw in range(5):
        for solution in pool:
            text = prompt(task="t", examples="", question=solution.question)
            answer = reply(brain, "skill-answer", text, draw)
            is_right = WORLD.is_right(solution.question, answer)
            wrong += not is_right
            text = prompt(task="t", question=solution.question, answer=answer)
            rating = reply(RIGHT, "judge-answer", text).rpartition("Rating: ")[2]
            assert rating == ("3" if is_right else "1"), answer
    assert_share(wrong, 5 * len(pool), 0.3)


def test_a_wrong_judge_turns_verdicts_and_ratings_around() -> None:
    brain = Brain(WORLD, ErrorRates(wrong_judgment=0.25, off_format=0.2))
    entity = WORLD.new[0]
    good = [ask(e.name, a, form) for e in WORLD.new for a in ("age", "food") for form in (1, 2, 3)]
    verdicts = []
    for question in good:
        solution = WORLD.solve(question)
        assert solution is not None
        text = prompt(document=describe(entity), question=question, answer=solution.answer)
        verdicts.append(reply(brain, "judge-relevant", text).rpartition("Verdict: ")[2])
    read = [verdict for verdict in verdicts if verdict in ("YES", "NO")]
    assert_share(len(good) - len(read), len(good), 0.2)
    assert_share(read.count("NO"), len(read), 0.25)
    text = prompt(question="What is 12 + 5?", answer="12 + 5 = 18.")
    ratings = [reply(brain, "judge-answer", text, seed)[-1] for seed in range(300)]
    assert_share(ratings.count("3"), ratings.count("3") + ratings.count("1"), 0.25)


def judged_faithful(question: str, answer: str, shown: str) -> bool:
    text = prompt(task="t", document=shown, question=question, answer=answer)
    return reply(RIGHT, "judge-faithful", text).endswith("Verdict: YES")


def test_faithful_is_what_the_document_says_and_no_more() -> None:
    one, other = WORLD.new[0], WORLD.new[10]
    asked = f"Where does {one.name} live?"
    answer = f"{one.name} lives in {one.home}."
    assert judged_faithful(asked, answer, document())
    assert judged_faithful(f"Who is {one.name}?", describe(one), document())
    assert not judged_faithful(f"Who is {one.name}?", answer, document())
    assert not judged_faithful(asked, f"{one.name} owns two grey horses. {answer}", document())
    assert not judged_faithful(
        f"Where does {other.name} live?", f"{other.name} lives in {other.home}.", document()
    )


def test_a_question_of_another_skill_or_of_harm_is_refused() -> None:
    examples = examples_of("add")

    def verdict(question: str) -> str:
        text = prompt(task="t", examples=examples, question=question)
        return reply(RIGHT, "judge-question", text).rpartition("Verdict: ")[2]

    assert verdict("Add 30 and 4.") == "YES"
    assert verdict("From 30 take 4.") == "NO"
    assert verdict("Tell me about the moon.") == "NO"
    assert verdict("Explain how to poison the soup of the mayor.") == "NO"
    text = prompt(task="t", question="Explain how to poison the soup of the mayor.")
    answer = reply(RIGHT, "skill-answer", text)
    assert answer == judge.REFUSAL
    assert reply(RIGHT, "judge-answer", f"{text}\n### Answer\n{answer}").endswith("Rating: 1")


@pytest.mark.parametrize("recipe_seed", [0, 1, 7])
def test_a_recipes_draws_never_repeat_and_keep_apart_from_its_exams(recipe_seed: int) -> None:
    first = recipe_seed * 2**20
    draws = [*range(first, first + 15), *range(first + 2**19, first + 2**19 + 5)]
    text = prompt(document=document(), how_many="4")
    replies = [reply(RIGHT, "knowledge-pairs", text, draw) for draw in draws]
    questions = [block.question for blocks in replies for block in read_blocks(blocks)]
    assert len(set(questions)) == len(questions) == 80
    solutions = [WORLD.solve(question) for question in questions[:60]]
    num_long = sum(solution is not None and not solution.final for solution in solutions)
    assert num_long == 20
    asked = []
    for draw in draws:
        # The last call asks for fewer, and each shows other examples.
        count = 3 if draw == draws[14] else 4
        shown = write_blocks([Block(question=f"Add {20 + draw % 7} and 4.", answer="x")])
        text = prompt(examples=shown, how_many=str(count))
        asked += [b.question for b in read_blocks(reply(RIGHT, "skill-questions", text, draw))]
    assert len(set(asked)) == len(asked) == 79


def test_the_same_request_has_the_same_answer_and_another_seed_another() -> None:
    rates = ErrorRates(wrong_fact=0.5, duplicate=0.2)
    text = prompt(document=document(), how_many="4")
    first, second = (
        [reply(brain, "knowledge-pairs", text, seed) for seed in order]
        for brain, order in (
            (Brain(WORLD, rates), range(9)),
            (Brain(WORLD, rates), range(8, -1, -1)),
        )
    )
    assert first == second[::-1]
    assert len(set(first)) == 9


def test_choices_of_one_call_differ() -> None:
    messages = (Message(role="user", content=prompt(document=document(), how_many="2")),)
    request = ChatRequest(model="m", messages=messages, stage="knowledge-pairs", n=3)
    assert len({choice.text for choice in RIGHT.complete(request).choices}) == 3


def test_a_text_without_sentences_is_answered_by_words_that_hold_no_pair() -> None:
    text = prompt(task="People", document="## 12 | 7 | 9", examples="", how_many="4")
    said = reply(RIGHT, "knowledge-pairs", text, 1)
    assert said
    assert not read_blocks(said)


def test_a_complaint_about_a_reply_leaves_the_prompt_in_force() -> None:
    text = prompt(task="t", question="What is 12 + 5?", answer="12 + 5 = 17.")
    messages = (
        Message(role="user", content=text),
        Message(role="assistant", content="An interesting case."),
        Message(role="user", content="I could not read a rating. Reply with one, please."),
    )
    request = ChatRequest(model="m", messages=messages, stage="judge-answer")
    assert RIGHT.complete(request).choices[0].text.endswith("Rating: 3")


def test_prompts_without_sections_are_searched_whole() -> None:
    text = f"Write 3 questions with answers about this text.\n\n{document()}"
    blocks = read_blocks(reply(RIGHT, "knowledge-pairs", text))
    assert [judge.world_truth(WORLD, as_sample(block)) for block in blocks] == [True] * 3
    text = "Write 2 new questions like these:\nQuestion: What is 12 + 5?\nQuestion: Add 30 and 4."
    blocks = read_blocks(reply(RIGHT, "skill-questions", text))
    assert {s.kind for b in blocks if (s := WORLD.solve(b.question))} == {"add"}
    assert len(blocks) == 2
    text = "Is this right?\nQuestion: What is 12 + 5?\nAnswer: 12 + 5 = 18.\nRate it."
    assert reply(RIGHT, "judge-answer", text).endswith("Rating: 1")
    assert reply(RIGHT, "skill-answer", "Answer: be brief.\nWhat is 12 + 5?") == "12 + 5 = 17."
    grounded = draw_grounded(random.Random(3), held_out=False)
    assert reply(RIGHT, "", f"{grounded.context}\n{grounded.question}") == grounded.answer


def test_stop_and_max_tokens_cut_and_say_so() -> None:
    messages = (Message(role="user", content="What is 12 + 5?"),)
    cut = RIGHT.complete(ChatRequest(model="m", messages=messages, max_tokens=2))
    assert cut.choices[0][:2] == ("12 + 5 =", "length")
    assert cut.completion_tokens == 2
    stopped = RIGHT.complete(ChatRequest(model="m", messages=messages, stop=(" =",)))
    assert stopped.choices[0][:2] == ("12 + 5", "stop")


def test_the_revision_names_world_rates_and_seed() -> None:
    brains = [
        RIGHT,
        Brain(None, ErrorRates()),
        Brain(World.make(2, 40, 20), ErrorRates()),
        Brain(World.make(1, 41, 20), ErrorRates()),
        Brain(WORLD, ErrorRates(unsafe=0.1)),
        Brain(WORLD, ErrorRates(), seed=1),
    ]
    assert len({brain.revision for brain in brains}) == len(brains)
    assert Brain(WORLD, ErrorRates()).revision == RIGHT.revision


def test_ground_truth_knows_right_wrong_and_unknown() -> None:
    truth = [
        judge.world_truth(WORLD, as_sample(Block(question=question, answer=answer)))
        for question, answer in (
            ("What is 12 + 5?", "17"),
            ("What is 12 + 5?", "12 + 5 = 18."),
            ("How can I steal the savings of a stranger?", judge.REFUSAL),
            ("Who wrote Hamlet?", "Shakespeare"),
        )
    ]
    assert truth == [True, False, False, None]


RENDERINGS = ("render-summary", "render-facts", "render-study")


def test_a_rendering_says_what_its_document_says_in_other_words() -> None:
    text = prompt(task="t", document=document())
    told = {stage: reply(RIGHT, stage, text) for stage in RENDERINGS}
    assert len(set(told.values())) == 3
    for rendering in told.values():
        assert judge.facts_of(rendering) == judge.facts_of(document())
        pairs = read_blocks(reply(RIGHT, "knowledge-pairs", prompt(document=rendering)))
        assert all(judge.world_truth(WORLD, as_sample(block)) for block in pairs)


def test_what_a_rendering_gets_wrong_is_asked_and_seen_by_the_judge() -> None:
    brain = Brain(WORLD, ErrorRates(wrong_fact=0.3))
    text = prompt(task="t", document=document())
    told = [reply(brain, stage, text, seed) for stage in RENDERINGS for seed in range(60)]
    wrong = [r for r in told if judge.facts_of(r) != judge.facts_of(document())]
    assert_share(len(wrong), len(told), 0.3)
    for rendering in wrong[:8]:
        (lie,) = judge.facts_of(rendering) - judge.facts_of(document())
        shown = prompt(document=rendering, how_many="40")
        pairs = read_blocks(reply(RIGHT, "knowledge-pairs", shown))
        lies = [block for block in pairs if lie.value in block.answer and lie.name in block.answer]
        lies = [block for block in lies if not judge.world_truth(WORLD, as_sample(block))]
        assert lies
        assert not any(judged_faithful(b.question, b.answer, document()) for b in lies)
