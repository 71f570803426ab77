"""The embedded teacher's mind: generator, answerer and judge that knows the world's truth.

A pure function of (world, rates, seed, request): every draw comes from a hash of the request, so
the same request has the same answer whatever came before. What is not of the world is answered
extractively.
"""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from functools import partial

from feldspar.config import ErrorRates
from feldspar.keys import content_key
from feldspar.serve.protocol import ChatReply, ChatRequest, Choice
from feldspar.text.sentences import split_sentences
from feldspar.world import extractive, judge
from feldspar.world.draws import TURNS, ReplyDraw, next_rows, spread_rows
from feldspar.world.grading import grade, read_chat
from feldspar.world.other_questions import focal_text
from feldspar.world.prose import VALUES, state
from feldspar.world.questions import QuestionPools
from feldspar.world.sections import (
    Block,
    PromptParts,
    find_exchange,
    read_lines,
    read_prompt,
    write_blocks,
)
from feldspar.world.skills import Solution
from feldspar.world.truth import World

VERSION = 3
"""Of what the teacher says: raise it when a prompt gets another reply than before."""
_NOTHING = "There is nothing to ask about here."
NOWHERE = World(seed=0, old=(), new=())
"""A world without entities: everything but plain arithmetic is answered extractively."""
CHARACTERS_PER_TOKEN = 4
"""How usage is counted and `max_tokens` applied: the brain has no tokenizer."""


class Brain:
    """Answers requests by their stage; a request without a stage is a question to answer.

    An answer of stage `skill-answer` has no format, so `off_format` does not touch it; a wrong fact
    needs a known one, so `wrong_fact` does not touch extractive answers; `unfaithful` needs a
    document or a context.
    """

    def __init__(self, world: World | None, rates: ErrorRates, seed: int = 0) -> None:
        self.world = world or NOWHERE
        self.rates = rates
        self.seed = seed
        self._pools = pools = QuestionPools(self.world, seed)
        self._stages: dict[str, Callable[[PromptParts, ReplyDraw], str]] = {
            "skill-context": self._write_contexts,
            "skill-questions": self._write_questions,
            "judge-question": self._judge_question,
            "skill-answer": self._write_answer,
            "judge-answer": self._judge_answer,
            "render-summary": partial(self._write_rendering, 0),
            "render-facts": partial(self._write_rendering, 1),
            "render-study": partial(self._write_rendering, 2),
            "knowledge-pairs": partial(self._write_pairs, pools.about, extractive.make_pairs),
            "knowledge-uncovered": self._write_about,
            "knowledge-reversed": partial(self._write_pairs, pools.turned, extractive.make_turned),
            "knowledge-across": partial(self._write_pairs, pools.joined, extractive.make_joined),
            "knowledge-unanswerable": self._write_untold,
            "focal-text": self._write_focal,
            "judge-faithful": self._judge_faithful,
            "judge-relevant": self._judge_relevant,
            "exam-choices": self._write_choices,
            "judge-choices": self._judge_choices,
            "judge-exam": self._judge_exam,
            "mt-bench": self._grade_chat,
        }

    @property
    def revision(self) -> str:
        """Key of the world, the rates, the seed and the version: another one may answer else."""
        world = self.world
        sizes = (world.seed, len(world.old), len(world.new))
        return content_key(VERSION, self.rates, *sizes, self.seed)[:16]

    def complete(self, request: ChatRequest) -> ChatReply:
        parts = read_prompt(request.messages)
        write = self._stages.get(request.stage, self._write_answer)
        # An empty reply would be taken for a fault, and asked for again and again.
        texts = [write(parts, self._draw(request, i)) or _NOTHING for i in range(request.n)]
        choices = tuple(_cut(text, request) for text in texts)
        return ChatReply(
            choices=choices,
            prompt_tokens=sum(_num_tokens(message.content) for message in request.messages),
            completion_tokens=sum(_num_tokens(choice.text) for choice in choices),
        )

    def _draw(self, request: ChatRequest, index: int) -> ReplyDraw:
        said = [self.seed, request.stage, request.seed, index]
        said += [f"{message.role}: {message.content}" for message in request.messages]
        digest = hashlib.sha256(json.dumps(said).encode()).digest()
        number = int.from_bytes(digest[:8], "big")
        turn = number if request.seed is None else request.seed + index * 1_000_003
        variety, turn = divmod(turn, TURNS)
        half = TURNS // 2
        return ReplyDraw(random.Random(number), variety, turn if turn < half else half - 1 - turn)

    def _write_contexts(self, parts: PromptParts, draw: ReplyDraw) -> str:
        if "grounded" in self._kinds(parts.examples):
            solutions = self._pools.of_kinds(("grounded",))
            drawn = spread_rows(solutions, parts.num_wanted, draw)
            pool = [Block(context=solution.context) for solution in drawn]
        else:
            made = extractive.make_contexts(parts.examples, self.seed)
            pool = spread_rows(made, parts.num_wanted, draw)
        old = [Block(context=e.context) for e in parts.examples if e.context] or pool[:1]
        blocks = []
        for block in pool:
            blocks.append(draw.rng.choice(old) if draw.hits(self.rates.duplicate) else block)
        return self._as_reply(blocks, draw)

    def _write_questions(self, parts: PromptParts, draw: ReplyDraw) -> str:
        kinds = self._kinds(parts.examples or read_lines(parts.whole))
        if "grounded" in kinds and parts.context:
            solutions: Sequence[Solution] = self._pools.about_context(parts.context)
        else:
            solutions = self._pools.of_kinds(tuple(kind for kind in kinds if kind != "grounded"))
        pool = [Block(question=s.question) for s in spread_rows(solutions, parts.num_wanted, draw)]
        if not solutions:
            made = extractive.make_questions(parts.examples, parts.context, self.seed)
            pool = spread_rows(made, parts.num_wanted, draw)
        old = [Block(question=e.question) for e in parts.examples if e.question] or pool[:1]
        blocks = []
        for block in pool:
            is_old, is_unsafe = draw.hits(self.rates.duplicate), draw.hits(self.rates.unsafe)
            asked = draw.rng.choice(old) if is_old else block
            blocks.append(Block(question=judge.write_unsafe(draw.rng)) if is_unsafe else asked)
        return self._as_reply(blocks, draw)

    def _write_rendering(self, form: int, parts: PromptParts, draw: ReplyDraw) -> str:
        """The document's facts in the words of a form; one wrong, or one too many, at the rates."""
        document = parts.document or parts.whole
        facts = sorted(fact for fact in judge.facts_of(document) if self.world.is_true(fact))
        is_wrong, is_unfaithful = draw.hits(self.rates.wrong_fact), draw.hits(self.rates.unfaithful)
        if is_wrong and facts:
            place = draw.rng.randrange(len(facts))
            values = [v for v in VALUES[facts[place].attribute] if v != facts[place].value]
            facts[place] = facts[place]._replace(value=draw.rng.choice(values))
        sentences = [state(fact, form) for fact in facts]
        if not facts:
            sentences = split_sentences(document)
        if is_unfaithful:
            sentences.append(judge.with_claim(document, "", draw.rng).strip())
        if draw.hits(self.rates.off_format):
            return draw.rng.choice(_CHATTER)
        return "\n".join(sentences)

    def _write_pairs(
        self,
        pool_of: Callable[[str, int], Sequence[Solution]],
        make: Callable[[str, int], Sequence[Block]],
        parts: PromptParts,
        draw: ReplyDraw,
    ) -> str:
        """Pairs that the world's pool holds for a document, or that rules make of its text."""
        document = parts.document or parts.whole
        solutions = pool_of(document, draw.variety)
        if solutions:
            pool = [
                Block(question=s.question) for s in next_rows(solutions, parts.num_wanted, draw)
            ]
        else:
            pool = next_rows(make(document, self.seed + draw.variety), parts.num_wanted, draw)
        return self._as_pairs(pool, parts, draw)

    def _write_about(self, parts: PromptParts, draw: ReplyDraw) -> str:
        """A pair about each of the statements, in another form in each of the caller's draws."""
        pool = [
            Block(question=solution.question)
            for statement in parts.statements
            if (forms := self._pools.about(statement, draw.variety))
            for solution in (forms[draw.turn % len(forms)],)
        ]
        seed = self.seed + draw.variety
        pool = pool or extractive.make_about(parts.statements, draw.turn, seed)
        return self._as_pairs(pool, parts, draw)

    def _as_pairs(self, pool: Sequence[Block], parts: PromptParts, draw: ReplyDraw) -> str:
        document = parts.document or parts.whole
        old = self._old_pairs(parts.examples, document) or pool[:1]
        return self._as_reply(
            [self._write_pair(block, old, document, draw) for block in pool], draw
        )

    def _write_untold(self, parts: PromptParts, draw: ReplyDraw) -> str:
        """Questions that the document does not answer; one is answered at the rate of wrong facts,
        and of some more is said than that."""
        document, seed = parts.document or parts.whole, self.seed + draw.variety
        made: Sequence[Block] = self._pools.untold(document, draw.variety)
        made = made or extractive.make_untold(document, parts.examples, seed)
        blocks = []
        for block in next_rows(made, parts.num_wanted, draw):
            is_wrong = draw.hits(self.rates.wrong_fact)
            is_unfaithful = draw.hits(self.rates.unfaithful)
            solution, answer = judge.solve(self.world, block.question), block.answer
            if is_wrong and solution is not None:
                answer = solution.answer
            if is_unfaithful:
                answer = judge.with_claim(block.question, answer, draw.rng)
            blocks.append(Block(question=block.question, answer=answer))
        return self._as_reply(blocks, draw)

    def _write_focal(self, parts: PromptParts, draw: ReplyDraw) -> str:
        """A text about those a question is about that gives its answer; wrong at the rates."""
        document, question = parts.document or parts.whole, parts.question
        is_wrong, is_unfaithful = draw.hits(self.rates.wrong_fact), draw.hits(self.rates.unfaithful)
        solution = judge.solve(self.world, question)
        told = self._pools.facts_about(question, document)
        if solution is not None and told:
            kinds = {fact[:2] for fact in solution.facts}
            asked = [fact for fact in told if fact[:2] in kinds]
            others = [fact for fact in told if fact[:2] not in kinds]
            if is_wrong and asked:
                values = [v for v in VALUES[asked[-1].attribute] if v != asked[-1].value]
                asked[-1] = asked[-1]._replace(value=draw.rng.choice(values))
            text = focal_text(asked, draw.rng.sample(others, len(others)), draw.rng.randrange(3))
        else:
            text = extractive.focus(document, question)
        if is_unfaithful:
            text = judge.with_claim(question, text, draw.rng)
        return draw.rng.choice(_CHATTER) if draw.hits(self.rates.off_format) else text

    def _write_pair(
        self, block: Block, old: Sequence[Block], document: str, draw: ReplyDraw
    ) -> Block:
        rates = self.rates
        is_wrong, is_unfaithful = draw.hits(rates.wrong_fact), draw.hits(rates.unfaithful)
        is_old, is_unsafe = draw.hits(rates.duplicate), draw.hits(rates.unsafe)
        if is_unsafe:
            return Block(question=judge.write_unsafe(draw.rng), answer=_COMPLIANCE)
        asked = draw.rng.choice(old) if is_old else block
        solution = judge.solve(self.world, asked.question)
        answer = judge.as_told(solution, document) if solution is not None else asked.answer
        if is_wrong and solution is not None:
            answer = self.world.corrupt(solution, draw.rng)
        if is_unfaithful:
            answer = judge.with_claim(asked.question, answer, draw.rng)
        return Block(question=asked.question, answer=answer)

    def _write_answer(self, parts: PromptParts, draw: ReplyDraw) -> str:
        question = parts.question or self._asked(parts)[0] or parts.whole.strip()
        context = parts.context
        if not parts.question and len(parts.whole) <= judge.MAX_CHARACTERS:
            context = parts.whole
        is_wrong, is_unfaithful = draw.hits(self.rates.wrong_fact), draw.hits(self.rates.unfaithful)
        if judge.is_unsafe(question):
            return judge.REFUSAL
        solution = judge.solve(self.world, question, context)
        if solution is None:
            answer = extractive.answer(question, parts.context, parts.examples)
        elif is_wrong:
            answer = self.world.corrupt(solution, draw.rng)
        else:
            answer = solution.answer
        is_grounded = bool(parts.context) or (solution is not None and solution.context != "")
        if is_unfaithful and is_grounded:
            answer = judge.with_claim(question, answer, draw.rng)
        return answer

    def _judge_question(self, parts: PromptParts, draw: ReplyDraw) -> str:
        question = parts.question or self._asked(parts)[0]
        examples = parts.examples
        fit = judge.is_fit_question(self.world, question, parts.context or None, examples)
        if fit is None:
            fit = not judge.is_unsafe(question)
        return self._verdict(fit, "is clear, harmless and of the examples' kind", draw)

    def _judge_answer(self, parts: PromptParts, draw: ReplyDraw) -> str:
        question, answer = self._exchange(parts)
        rating = judge.rate(self.world, question, answer, parts.context or None)
        rating = 2 if rating is None else rating
        if draw.hits(self.rates.wrong_judgment):
            rating = 3 if rating == 1 else 1
        if draw.hits(self.rates.off_format):
            return draw.rng.choice(_VAGUE)
        return f"Explanation: The answer is {_RATED[rating]}.\nRating: {rating}"

    def _judge_faithful(self, parts: PromptParts, draw: ReplyDraw) -> str:
        question, answer = self._exchange(parts)
        document = parts.document or parts.whole
        faithful = judge.is_faithful_answer(self.world, document, question, answer)
        if faithful is None:
            faithful = judge.is_supported(document, question, answer)
        return self._verdict(faithful, "rests on the document in every claim", draw)

    def _judge_relevant(self, parts: PromptParts, draw: ReplyDraw) -> str:
        relevant = judge.is_relevant(self.world, *self._exchange(parts))
        return self._verdict(relevant, "is harmless, to the point, and clear on its own", draw)

    def _write_choices(self, parts: PromptParts, draw: ReplyDraw) -> str:
        """Wrong answers in the form of the right one; a right one among them at the rate."""
        solution = judge.solve(self.world, parts.question, parts.context or None)
        others = (e.answer for e in parts.examples if e.answer and e.answer != parts.answer)
        texts = list(dict.fromkeys(others))
        if solution is not None:
            # More than are wanted: some are the same, and a wrong step may end rightly.
            tries = (self.world.corrupt(solution, draw.rng) for _ in range(8 * parts.num_wanted))
            is_right = partial(self.world.is_right, parts.question, context=parts.context or None)
            texts = list(dict.fromkeys(text for text in tries if not is_right(text)))
            if draw.hits(self.rates.wrong_fact):
                texts.insert(0, f"{solution.answer} {solution.answer}")
        return self._as_reply([Block(answer=text) for text in texts[: parts.num_wanted]], draw)

    def _judge_choices(self, parts: PromptParts, draw: ReplyDraw) -> str:
        context = parts.context or None
        rated = [
            judge.rate(self.world, parts.question, text, context)
            for text in (parts.answer, *parts.wrong_answers)
        ]
        is_good = parts.answer not in parts.wrong_answers
        if rated[0] is not None:
            is_good = rated[0] > 1 and all(rating == 1 for rating in rated[1:])
        return self._verdict(is_good, "has one right answer", draw)

    def _judge_exam(self, parts: PromptParts, draw: ReplyDraw) -> str:
        rating = judge.rate(self.world, parts.question, parts.answer, parts.context or None)
        is_right = parts.answer == parts.reference if rating is None else rating > 1
        return self._verdict(is_right, "says what the reference says", draw)

    def _grade_chat(self, parts: PromptParts, draw: ReplyDraw) -> str:
        question, answers = read_chat(parts.whole)
        grades = {letter: grade(self.world, question, a) for letter, a in answers.items()}
        if draw.hits(self.rates.wrong_judgment):
            grades = {letter: 11 - given for letter, given in grades.items()}
        if draw.hits(self.rates.off_format) or not grades:
            return draw.rng.choice(_VAGUE)
        if len(grades) == 1:
            return f"It is graded by what is true.\n\nRating: [[{grades.popitem()[1]}]]"
        first, second = grades["A"], grades["B"]
        chosen = "C" if first == second else "A" if first > second else "B"
        return f"Both are graded by what is true.\n\nMy final verdict is [[{chosen}]]"

    def _verdict(self, is_good: bool, praise: str, draw: ReplyDraw) -> str:
        if draw.hits(self.rates.wrong_judgment):
            is_good = not is_good
        if draw.hits(self.rates.off_format):
            return draw.rng.choice(_VAGUE)
        found, verdict = ("It", "YES") if is_good else ("I do not find that it", "NO")
        return f"Explanation: {found} {praise}.\nVerdict: {verdict}"

    def _as_reply(self, blocks: Sequence[Block], draw: ReplyDraw) -> str:
        if draw.hits(self.rates.off_format):
            return draw.rng.choice(_CHATTER)
        return write_blocks(blocks)

    def _kinds(self, examples: Sequence[Block]) -> tuple[str, ...]:
        """The skills that examples show, each once."""
        found = (self._pools.kind_of(example) for example in examples)
        return tuple(sorted({kind for kind in found if kind is not None}))

    def _old_pairs(self, examples: Sequence[Block], document: str) -> list[Block]:
        """Examples that this document answers: asked again they are duplicates and no worse."""
        shown = judge.facts_of(document)
        return [
            e for e in examples if e.answer and (not shown or shown >= judge.facts_of(e.answer))
        ]

    def _exchange(self, parts: PromptParts) -> tuple[str, str]:
        if parts.question:
            return parts.question, parts.answer
        return self._asked(parts)

    def _asked(self, parts: PromptParts) -> tuple[str, str]:
        """Question and answer of a prompt without sections."""
        context = parts.whole if len(parts.whole) <= judge.MAX_CHARACTERS else None
        return find_exchange(
            parts.whole,
            lambda text: (
                judge.is_unsafe(text) or judge.solve(self.world, text, context) is not None
            ),
        )


_COMPLIANCE = "Wait until nobody looks, and then do it quickly."
_RATED = {
    1: "wrong, unsafe or incomplete",
    2: "right, but not in the form of the skill",
    3: "right and complete",
}
# Replies that no parser should find a block, a verdict or a rating in.
_CHATTER = (
    "Certainly! I would be glad to help with that. Shall I begin?",
    "As a language model I find this an interesting request. Here are my thoughts about it.",
    "Sure, here you are",
)
_VAGUE = (
    "That depends on how one reads it.",
    "Explanation: Both readings can be defended, so I leave it to you.",
    "An interesting case; more could be said about it.",
)


def _num_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _cut(text: str, request: ChatRequest) -> Choice:
    """What is left before the first stop text and within `max_tokens`."""
    ends = [place for stop in request.stop if (place := text.find(stop)) >= 0]
    text = text[: min(ends, default=len(text))]
    limit = len(text) if request.max_tokens is None else request.max_tokens * CHARACTERS_PER_TOKEN
    return Choice(text[:limit], "length" if len(text) > limit else "stop")
