"""What generation and exams will cost at a teacher, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from feldspar.config import Criterion, GenerateConfig, Rendering
from feldspar.generate.borrowed import gather_pool
from feldspar.generate.calibrate import CRITERIA
from feldspar.generate.choices import choice_work
from feldspar.generate.prompting import Prompts, Stage, Value, read_prompts
from feldspar.generate.requests import exam_draw, exam_works, generation_works, num_exam_items
from feldspar.generate.writers import RENDER_STAGES, Work
from feldspar.records import Branch, Estimate, Leaf, SampleKind

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for English; other languages take more tokens."""
JUDGMENT_TOKENS = 40
ANSWER_BYTES_PER_TOKEN = 12
"""On disk: an answer in the journal, and once more in the samples."""


class _Cost(NamedTuple):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: _Cost, times: int = 1) -> _Cost:
        return _Cost(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


_Costs = dict[str, _Cost]
"""By stage."""


def estimate(leaves: Iterable[Leaf], config: GenerateConfig, seed: int = 1) -> list[Estimate]:
    """Calls and tokens of exams and samples by stage, if nothing is rejected or cut off on the way.

    Prompts are counted as they will be sent, for the first call of each leaf and chunk; new texts
    are taken to be as long as the leaf's own seeds.
    """
    prompts = read_prompts(config)
    judged = config.judging_all()
    leaves = list(leaves)
    pool = gather_pool(leaves, config, seed)
    exams: _Costs = {}
    samples: _Costs = {}
    for leaf in leaves:
        costs: dict[_Key, _Costs] = {}
        for work in generation_works(leaf, config, seed, pool):
            _add(samples, _cost_once(work, config, prompts, costs))
        lacking = num_exam_items(leaf, config, seed) - len(leaf.exam_seeds)
        costs = {}
        for work in exam_works(leaf, config, seed, 0, -(-lacking // config.pairs_per_call)):
            _add(exams, _cost_once(work, judged, prompts, costs))
        _add(exams, _choices_cost(leaf, config, prompts, seed))
    return [
        Estimate(
            step=step,
            stage=stage,
            **cost._asdict(),
            disk_bytes=cost.completion_tokens * ANSWER_BYTES_PER_TOKEN,
            note="if no sample is rejected on the way; 4 characters a token",
        )
        for step, costs in (("exams", exams), ("samples", samples))
        for stage, cost in costs.items()
    ]


def expected_samples(
    leaves: Iterable[Leaf], config: GenerateConfig, seed: int = 1
) -> Counter[Branch]:
    """Samples that will be asked for, by branch: as many are kept when none is rejected."""
    counts: Counter[Branch] = Counter()
    for leaf in leaves:
        counts[leaf.branch] += sum(w.count for w in generation_works(leaf, config, seed))
    return counts


def expected_tokens(
    leaves: Iterable[Leaf], config: GenerateConfig, seed: int = 1
) -> Counter[Branch]:
    """Tokens of those samples, each as long as its leaf's middling seed; skills with contexts."""
    tokens: Counter[Branch] = Counter()
    leaves = list(leaves)
    pool = gather_pool(leaves, config, seed)
    for leaf in leaves:
        for work in generation_works(leaf, config, seed, pool):
            question, answer, context = _typical(work)
            shown = "" if leaf.branch == "knowledge" else context or ""
            row = shown + question + answer
            if work.chunk and work.kind != "pair":
                row = work.chunk.text if work.kind == "document" else work.chunk.text + row
            tokens[leaf.branch] += work.count * _tokens(row)
            tokens[leaf.branch] += work.count * sum(_tokens(chunk.text) for chunk in work.others)
    return tokens


def _add(costs: _Costs, more: _Costs, times: int = 1) -> None:
    for stage, cost in more.items():
        costs[stage] = costs.get(stage, _Cost()).plus(cost, times)


_Key = tuple[str, int, Rendering | None, SampleKind]


def _cost_once(
    work: Work, config: GenerateConfig, prompts: Prompts, costs: dict[_Key, _Costs]
) -> _Costs:
    """The cost of a call and all that follows, from the first of its chunk, form and size.

    A rendering is paid with the first call about it.
    """
    key = (work.chunk.id if work.chunk else "", work.count, work.rendering, work.kind)
    total: _Costs = {}
    if key not in costs:
        if work.rendering and not _is_asked_as_pairs(work, config):
            total = _rendering_cost(work, work.rendering, prompts)
        costs[key] = _cost(work, config, prompts)
    _add(total, costs[key])
    return total


def _cost(work: Work, config: GenerateConfig, prompts: Prompts) -> _Costs:
    if calls := _own_calls(work, config):
        text = "".join(f"{s.context or ''}{s.question}{s.answer}" for s in work.seeds)
        text += work.chunk.text if work.chunk else ""
        num_calls = calls * work.count
        tokens = num_calls * _tokens(text), num_calls * _tokens(_typical(work)[1])
        return {"own pipeline": _Cost(num_calls, *tokens)}
    if work.kind == "document" or _is_asked_as_pairs(work, config):
        return {}
    is_knowledge = work.leaf.branch == "knowledge"
    return (_knowledge_cost if is_knowledge else _skill_cost)(work, config, prompts)


def _is_asked_as_pairs(work: Work, config: GenerateConfig) -> bool:
    """Whether the calls of a retrieval sample are those of pairs that are wanted too."""
    return work.kind == "retrieval" and "pair" in config.knowledge.kinds


def _rendering_cost(work: Work, rendering: Rendering, prompts: Prompts) -> _Costs:
    assert work.chunk is not None, work
    return _call(work, prompts, RENDER_STAGES[rendering], _tokens(work.chunk.text), {})


def _own_calls(work: Work, config: GenerateConfig) -> int:
    """Calls a sample of a pipeline of the user's own, as the recipe says; 0 where it has none."""
    path = f"{work.leaf.path}/"
    places = [
        (len(place), p.calls)
        for p in config.pipeline
        for place in p.leaves
        if path.startswith(f"{place.strip('/')}/")
    ]
    return max(places)[1] if places else 0


def _knowledge_cost(work: Work, config: GenerateConfig, prompts: Prompts) -> _Costs:
    question, answer, _ = _typical(work)
    values: dict[str, Value] = {"question": question, "answer": answer}
    costs = _call(work, prompts, "knowledge-pairs", work.count * _tokens(question + answer), values)
    for stage in _judge_stages(config, "faithful", "relevant"):
        _add(costs, _call(work, prompts, stage, JUDGMENT_TOKENS, values), work.count)
    return costs


def _skill_cost(work: Work, config: GenerateConfig, prompts: Prompts) -> _Costs:
    question, answer, context = _typical(work)
    values: dict[str, Value] = {"question": question, "answer": answer, "context": context}
    if work.leaf.is_grounded:
        costs = _call(work, prompts, "skill-context", work.count * _tokens(context or ""), values)
        each = _call(work, prompts, "skill-questions", _tokens(question), values)
        _add(costs, each, work.count)
    else:
        num_tokens = work.count * _tokens(question)
        costs = _call(work, prompts, "skill-questions", num_tokens, values)
    _add(costs, _call(work, prompts, "skill-answer", _tokens(answer), values), work.count)
    for stage in _judge_stages(config, "fit", "answer"):
        _add(costs, _call(work, prompts, stage, JUDGMENT_TOKENS, values), work.count)
    return costs


def _choices_cost(leaf: Leaf, config: GenerateConfig, prompts: Prompts, seed: int) -> _Costs:
    """Of a multiple-choice exam: wrong answers to each reported question, judged together."""
    costs: _Costs = {}
    if config.exam_choices:
        draw = exam_draw(seed)
        work = choice_work(leaf, config.exam_choices, draw, config.seeds_per_prompt)
        question, answer, _ = _typical(work)
        values: dict[str, Value] = {"question": question, "answer": answer}
        num_items = -(-max(num_exam_items(leaf, config, seed), len(leaf.exam_seeds)) // 2)
        written = work.count * _tokens(answer)
        _add(costs, _call(work, prompts, "exam-choices", written, values), num_items)
        values["choices"] = (answer,) * work.count
        _add(costs, _call(work, prompts, "judge-choices", JUDGMENT_TOKENS, values), num_items)
    return costs


def _judge_stages(config: GenerateConfig, *criteria: Criterion) -> list[Stage]:
    wanted = [c for c in criteria if config.judge and c not in config.judge_skips]
    return [CRITERIA[criterion] for criterion in wanted]


def _call(
    work: Work, prompts: Prompts, stage: Stage, completion_tokens: int, values: dict[str, Value]
) -> _Costs:
    (message,) = prompts.of_leaf(work.leaf.path).render(
        stage,
        task=work.task,
        domain=work.leaf.domain,
        document=work.chunk.text if work.chunk else None,
        examples=work.seeds,
        count=work.count,
        persona="precise",
        **values,
    )
    return {stage: _Cost(1, _tokens(message.content), completion_tokens)}


def _typical(work: Work) -> tuple[str, str, str | None]:
    """Question, answer, and context of middling length among the leaf's seeds."""
    seeds = work.leaf.seeds
    if not seeds:
        return "?" * 60, "." * 200, None
    by_length = sorted(seeds, key=lambda seed: len(seed.question) + len(seed.answer))
    typical = by_length[len(by_length) // 2]
    contexts = sorted((seed.context for seed in seeds if seed.context), key=len)
    return typical.question, typical.answer, contexts[len(contexts) // 2] if contexts else None


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
