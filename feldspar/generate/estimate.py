"""What generation and exams will cost at a teacher, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from feldspar.config import GenerateConfig, Rendering
from feldspar.generate.borrowed import gather_borrowed
from feldspar.generate.choices import CHOICE_STAGES, choice_request
from feldspar.generate.draft import RequestKind, SampleRequest
from feldspar.generate.pipelines import planned_calls
from feldspar.generate.prompting import Prompts, Value, read_prompts
from feldspar.generate.requests import counted_requests, exam_draw, exam_requests, num_exam_items
from feldspar.generate.stages import STAGE_OF_RENDERING, STAGES, Blocks, StageName, Text
from feldspar.records import SHOWN_KINDS, Branch, Estimate, Leaf
from feldspar.tokens.count import CHARACTERS_PER_TOKEN, guess_tokens

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
    borrowed = gather_borrowed(leaves, config, seed)
    exams: _Costs = {}
    samples: _Costs = {}
    for leaf in leaves:
        costs: dict[_Key, _Costs] = {}
        for request, times in counted_requests(leaf, config, seed, borrowed):
            _add(samples, _cost_once(request, config, prompts, costs), times)
        lacking = num_exam_items(leaf, config, seed) - len(leaf.exam_seeds)
        costs = {}
        for request in exam_requests(leaf, config, seed, 0, -(-lacking // config.pairs_per_call)):
            _add(exams, _cost_once(request, judged, prompts, costs))
        _add(exams, _choices_cost(leaf, config, prompts, seed))
    return [
        Estimate(
            step=step,
            stage=stage,
            **cost._asdict(),
            disk_bytes=cost.completion_tokens * ANSWER_BYTES_PER_TOKEN,
            note=f"if no sample is rejected on the way; {CHARACTERS_PER_TOKEN} characters a token",
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
        counts[leaf.branch] += sum(w.count * n for w, n in counted_requests(leaf, config, seed))
    return counts


def expected_texts(
    leaves: Iterable[Leaf], config: GenerateConfig, seed: int = 1
) -> Counter[Branch]:
    """Of those samples the ones that are texts: passages, what is written of them, and focal
    texts."""
    counts: Counter[Branch] = Counter()
    for leaf in leaves:
        for wanted, times in counted_requests(leaf, config, seed):
            if wanted.kind in ("document", "focal"):
                counts[leaf.branch] += wanted.count * times
    return counts


def expected_tokens(
    leaves: Iterable[Leaf], config: GenerateConfig, seed: int = 1
) -> Counter[Branch]:
    """Tokens of those samples, each as long as its leaf's middling seed; skills with contexts."""
    tokens: Counter[Branch] = Counter()
    leaves = list(leaves)
    borrowed = gather_borrowed(leaves, config, seed)
    for leaf in leaves:
        for request, times in counted_requests(leaf, config, seed, borrowed):
            question, answer, context = _typical(request)
            shown = "" if leaf.branch == "knowledge" else context or ""
            row = shown + question + answer
            if request.chunk and request.kind == "document":
                row = request.chunk.text
            size = guess_tokens(row)
            if request.chunk and request.kind in SHOWN_KINDS:
                shown_chunks = (request.chunk, *request.others)
                size += sum(guess_tokens(chunk.text) for chunk in shown_chunks)
            tokens[leaf.branch] += request.count * times * size
    return tokens


def _add(costs: _Costs, more: _Costs, times: int = 1) -> None:
    for stage, cost in more.items():
        costs[stage] = costs.get(stage, _Cost()).plus(cost, times)


_Key = tuple[str, int, Rendering | None, RequestKind]


def _cost_once(
    request: SampleRequest, config: GenerateConfig, prompts: Prompts, costs: dict[_Key, _Costs]
) -> _Costs:
    """The cost of a call and all that follows, from the first of its chunk, form and size.

    A rendering is paid once, with the first request that needs it.
    """
    key = (
        request.chunk.id if request.chunk else "",
        request.count,
        request.rendering,
        request.kind,
    )
    total: _Costs = {}
    # No request is for no samples: this key stands for the rendering itself.
    written: _Key = (key[0], 0, request.rendering, "document")
    if request.rendering and written not in costs:
        stage = STAGE_OF_RENDERING[request.rendering]
        total = _call(request, prompts, stage, _typical(request))
        costs[written] = {}
    if key not in costs:
        costs[key] = _cost(request, config, prompts)
    _add(total, costs[key])
    return total


def _cost(request: SampleRequest, config: GenerateConfig, prompts: Prompts) -> _Costs:
    if calls := _own_calls(request, config):
        text = "".join(f"{s.context or ''}{s.question}{s.answer}" for s in request.seeds)
        text += request.chunk.text if request.chunk else ""
        num_calls = calls * request.count
        tokens = num_calls * guess_tokens(text), num_calls * guess_tokens(_typical(request)[1])
        return {"own pipeline": _Cost(num_calls, *tokens)}
    if _is_asked_as_pairs(request, config):
        return {}
    texts = _typical(request)
    if request.leaf.branch == "knowledge":
        texts = texts._replace(context=None)
    costs: _Costs = {}
    for stage, num_calls, num_blocks in planned_calls(request, config):
        _add(costs, _call(request, prompts, stage, texts, num_blocks), num_calls)
    return costs


def _is_asked_as_pairs(request: SampleRequest, config: GenerateConfig) -> bool:
    """Whether the calls of a retrieval sample are those of pairs that are wanted too."""
    return request.kind == "retrieval" and "pair" in config.knowledge.kinds


def _own_calls(request: SampleRequest, config: GenerateConfig) -> int:
    """Calls a sample of a pipeline of the user's own, as the recipe says; 0 where it has none."""
    path = f"{request.leaf.path}/"
    places = [
        (len(place), p.calls)
        for p in config.pipeline
        for place in p.leaves
        if path.startswith(f"{place.strip('/')}/")
    ]
    return max(places)[1] if places else 0


def _choices_cost(leaf: Leaf, config: GenerateConfig, prompts: Prompts, seed: int) -> _Costs:
    """Of a multiple-choice exam: wrong answers to each reported question, judged together."""
    costs: _Costs = {}
    if config.exam_choices:
        draw = exam_draw(seed)
        request = choice_request(leaf, config.exam_choices, draw, config.seeds_per_prompt)
        texts = _typical(request)._replace(context=None)
        num_items = -(-max(num_exam_items(leaf, config, seed), len(leaf.exam_seeds)) // 2)
        for stage in CHOICE_STAGES:
            _add(costs, _call(request, prompts, stage, texts, request.count), num_items)
    return costs


class _Typical(NamedTuple):
    """What a sample of a leaf is taken to be like."""

    question: str
    answer: str
    context: str | None


def _typical(request: SampleRequest) -> _Typical:
    """Question, answer, and context of middling length among the leaf's seeds."""
    seeds = request.leaf.seeds
    if not seeds:
        return _Typical("?" * 60, "." * 200, None)
    by_length = sorted(seeds, key=lambda seed: len(seed.question) + len(seed.answer))
    typical = by_length[len(by_length) // 2]
    contexts = sorted((seed.context for seed in seeds if seed.context), key=len)
    context = contexts[len(contexts) // 2] if contexts else None
    return _Typical(typical.question, typical.answer, context)


def _call(
    request: SampleRequest, prompts: Prompts, stage: StageName, texts: _Typical, num_blocks: int = 1
) -> _Costs:
    """One call of a stage, its reply as long as its form and the leaf's seeds say."""
    values: dict[str, Value] = {"choices": (texts.answer,) * request.count, **texts._asdict()}
    document = request.passage if request.chunk else ""
    (message,) = prompts.of_leaf(request.leaf.path).render(
        stage,
        task=request.task,
        domain=request.leaf.domain,
        document=document or None,
        examples=request.seeds,
        count=request.count,
        persona="precise",
        **values,
    )
    form = STAGES[stage].form
    written = JUDGMENT_TOKENS
    if isinstance(form, Blocks):
        fields = texts._asdict()
        written = num_blocks * guess_tokens("".join(fields[name] or "" for name in form.fields))
    elif isinstance(form, Text):
        written = guess_tokens(document if STAGES[stage].rendering else texts.answer)
    return {stage: _Cost(1, guess_tokens(message.content), written)}
