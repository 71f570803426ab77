"""Which calls a leaf takes: how many, which seeds each shows, and with which draw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from feldspar.config import GenerateConfig, KnowledgeConfig, Rendering
from feldspar.generate.borrowed import Borrowed
from feldspar.generate.coverage import Statement
from feldspar.generate.draft import SampleRequest
from feldspar.generate.writers import DRAWS_PER_SEED
from feldspar.records import Chunk, Leaf, SampleKind, Seed
from feldspar.tokens.count import count_words

NOTHING_BORROWED = Borrowed()
EXAM_DRAWS = DRAWS_PER_SEED // 2
"""Exams take the upper half of a seed's draws."""
AGAIN_DRAWS = DRAWS_PER_SEED // 4
"""Draws of the round that asks about statements again, apart from the first's."""
SEEDS_APART = 1024
"""Seeds of recipes that draw apart; draws then stay below 2^30, which every server takes."""


def sample_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, borrowed: Borrowed = NOTHING_BORROWED
) -> Iterator[SampleRequest]:
    """Every call for training samples of a leaf, in order; with a target, the first round's."""
    if config.target is not None:
        num_calls = -(-config.target // config.pairs_per_call)
        yield from target_requests(leaf, config, seed, 0, num_calls, borrowed)
    elif leaf.branch == "knowledge":
        for chunk in range(len(chunks_of(leaf))):
            yield from _once_a_chunk(leaf, config, seed, chunk)
            for form in range(len(_forms(config))):
                for lap in range(config.calls_per_chunk):
                    place = _CallPlace(chunk, form, lap)
                    yield from _pair_requests(leaf, config, seed, place, borrowed)
    else:
        yield from _skill_requests(leaf, config, seed, borrowed)


class Counted(NamedTuple):
    """A call, and how many calls there are that cost the same: its like with other draws."""

    request: SampleRequest
    times: int


def counted_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, borrowed: Borrowed = NOTHING_BORROWED
) -> Iterator[Counted]:
    """What `sample_requests` gives, for counting: calls of a skill that differ only in their draw
    and in which seeds they show are one, so that a million take no longer than one."""
    if leaf.branch == "knowledge" or note_on(leaf):
        for request in sample_requests(leaf, config, seed, borrowed):
            yield Counted(request, 1)
        return
    num_full, rest = divmod(num_asked(leaf, config), config.pairs_per_call)
    if num_full:
        first = _skill_request(leaf, config, seed, 0, config.pairs_per_call, borrowed)
        yield Counted(first, num_full)
    if rest:
        yield Counted(_skill_request(leaf, config, seed, num_full, rest, borrowed), 1)


def num_asked(leaf: Leaf, config: GenerateConfig) -> int:
    """Training samples that will be asked for in a leaf, at least."""
    if config.target is not None:
        num_calls = -(-config.target // config.pairs_per_call)
        return 0 if note_on(leaf) else num_calls * config.pairs_per_call
    if leaf.branch == "knowledge":
        chunks = chunks_of(leaf)
        kinds = config.knowledge.kinds
        num_calls = len(_forms(config)) * config.calls_per_chunk
        num_kinds = len(_pair_kinds(config)) + ("focal" in kinds)
        num_extra = config.knowledge.extra_calls * len(_extra_kinds(leaf, config))
        num_texts = ("document" in kinds) + ("rendering" in kinds) * len(
            config.knowledge.renderings
        )
        of_pairs = (num_calls * num_kinds + num_extra) * config.pairs_per_call
        return len(chunks) * (of_pairs + num_texts)
    if not leaf.seeds:
        return 0
    return config.samples_per_leaf or config.samples_per_seed * len(leaf.seeds)


def target_requests(
    leaf: Leaf,
    config: GenerateConfig,
    seed: int,
    first: int,
    num_calls: int,
    borrowed: Borrowed = NOTHING_BORROWED,
) -> Iterator[SampleRequest]:
    """Calls number `first` and on; the chunks of a knowledge leaf take turns, then its renderings.

    They are the calls of a run without a target, in another order, so neither pays for the other.
    What each chunk is asked for once comes before the first.
    """
    if note_on(leaf):
        return
    if leaf.branch != "knowledge":
        for call in range(first, first + num_calls):
            yield _skill_request(leaf, config, seed, call, config.pairs_per_call, borrowed)
        return
    num_chunks = len(chunks_of(leaf))
    for chunk in range(num_chunks) if first == 0 else ():
        yield from _once_a_chunk(leaf, config, seed, chunk)
    for call in range(first, first + num_calls):
        turn, chunk = divmod(call, num_chunks)
        lap, form = divmod(turn, len(_forms(config)))
        yield from _pair_requests(leaf, config, seed, _CallPlace(chunk, form, lap), borrowed)


def main_kind(leaf: Leaf, config: GenerateConfig) -> SampleKind | None:
    """What a target counts; the other kinds come with it. None where only texts are wanted."""
    if leaf.branch != "knowledge":
        return "pair"
    return next(iter(_pair_kinds(config)), None)


def num_exam_items(leaf: Leaf, config: GenerateConfig, seed: int) -> int:
    """How many items a leaf's exam is topped up to: `exam_items`, or a quarter of those asked for.

    What an exam asks is not taught, so an exam as large as what a small leaf can yield would leave
    nothing to train on.
    """
    main = main_kind(leaf, config)
    if main is None:
        return config.exam_items
    asked = sum(
        request.count * times
        for request, times in counted_requests(leaf, config, seed)
        if request.kind == main
    )
    return min(config.exam_items, asked // 4)


def exam_draw(seed: int) -> int:
    """The first draw that no training sample has."""
    return _draw(seed, EXAM_DRAWS)


def exam_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, first: int, num_calls: int
) -> list[SampleRequest]:
    """Calls number `first` and on for exam questions: draws that no training sample has."""
    chunks = chunks_of(leaf) if leaf.branch == "knowledge" else ()
    if note_on(leaf):
        return []
    return [
        SampleRequest(
            leaf=leaf,
            seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, call),
            count=config.pairs_per_call,
            draw=_draw(seed, EXAM_DRAWS + call),
            chunk=_spread(chunks, call) if chunks else None,
        )
        for call in range(first, first + num_calls)
    ]


def chunks_of(leaf: Leaf) -> tuple[Chunk, ...]:
    """A knowledge leaf's chunks; where its documents are missing, the contexts of its seeds."""
    if leaf.chunks:
        return leaf.chunks
    contexts = dict.fromkeys(seed.context for seed in leaf.seeds if seed.context)
    return tuple(
        Chunk(
            id=hashlib.sha256(text.encode()).hexdigest()[:16],
            document="context of a seed",
            text=text,
            num_tokens=count_words(text),
        )
        for text in contexts
    )


def note_on(leaf: Leaf) -> str:
    """Why a leaf is asked for nothing; empty where it is asked."""
    if leaf.branch == "knowledge" and not chunks_of(leaf):
        return "no document, and no seed with a context, to ask about"
    if leaf.branch != "knowledge" and not leaf.seeds:
        return "no seed that the teacher may see"
    return ""


class _CallPlace(NamedTuple):
    """Of a call for pairs: which chunk, in which form, for which time."""

    chunk: int
    form: int
    lap: int


def _forms(config: GenerateConfig) -> tuple[Rendering | None, ...]:
    return (None, *config.knowledge.renderings)


def _pair_kinds(config: GenerateConfig) -> list[SampleKind]:
    kinds: tuple[SampleKind, ...] = ("pair", "retrieval")
    return [kind for kind in kinds if kind in config.knowledge.kinds]


def _extra_kinds(leaf: Leaf, config: GenerateConfig) -> list[SampleKind]:
    """Kinds with questions of their own; what takes two chunks is left out where there is one."""
    kinds: tuple[SampleKind, ...] = ("reversed", "across", "unanswerable")
    num_chunks = len(chunks_of(leaf))
    wanted = config.knowledge.kinds
    return [kind for kind in kinds if kind in wanted and (kind != "across" or num_chunks > 1)]


def _once_a_chunk(
    leaf: Leaf, config: GenerateConfig, seed: int, chunk: int
) -> Iterator[SampleRequest]:
    """A chunk's texts that are trained on as they are, and its questions of other kinds."""
    kinds, text = config.knowledge.kinds, chunks_of(leaf)[chunk]
    own = SampleRequest(
        leaf=leaf, seeds=(), count=1, draw=_draw(seed, 0), chunk=text, kind="document"
    )
    if "document" in kinds:
        yield own
    for form in config.knowledge.renderings if "rendering" in kinds else ():
        yield replace(own, rendering=form)
    for kind in _extra_kinds(leaf, config):
        for lap in range(config.knowledge.extra_calls):
            window = chunk * config.knowledge.extra_calls + lap
            yield SampleRequest(
                leaf=leaf,
                seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, window),
                count=config.pairs_per_call,
                draw=_draw(seed, lap),
                chunk=text,
                kind=kind,
                others=_second_chunk(leaf, chunk, seed, lap) if kind == "across" else (),
            )


def _second_chunk(leaf: Leaf, first: int, seed: int, lap: int) -> tuple[Chunk, ...]:
    """Another chunk of the leaf, each in its turn from a place that is drawn."""
    chunks = chunks_of(leaf)
    start = random.Random(f"{seed} {leaf.path} {first} across").randrange(len(chunks) - 1)
    return (chunks[(first + 1 + (start + lap) % (len(chunks) - 1)) % len(chunks)],)


def again_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, lacking: Iterable[Statement]
) -> list[SampleRequest]:
    """Calls for one more pair about each statement and form that is lacking: a call names up to
    `pairs_per_call` statements of one chunk, and each of them once."""
    chunks = {chunk.id: chunk for chunk in chunks_of(leaf)}
    requests: list[SampleRequest] = []
    for chunk_id, of_chunk in groupby(lacking, key=lambda statement: statement.chunk):
        statements = list(of_chunk)
        for lap in range(config.knowledge.least_forms):
            left = [s.text for s in statements if s.forms + lap < config.knowledge.least_forms]
            for start in range(0, len(left), config.pairs_per_call):
                named = tuple(left[start : start + config.pairs_per_call])
                window = len(requests)
                requests.append(
                    SampleRequest(
                        leaf=leaf,
                        seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, window),
                        count=len(named),
                        draw=_draw(seed, AGAIN_DRAWS + lap),
                        chunk=chunks[chunk_id],
                        statements=named,
                    )
                )
    return requests


def _pair_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, place: _CallPlace, borrowed: Borrowed
) -> Iterator[SampleRequest]:
    """One call for pairs; where both are wanted, once for pairs and once for retrieval samples."""
    chunk, forms = chunks_of(leaf)[place.chunk], _forms(config)
    window = (place.chunk * len(forms) + place.form) * config.calls_per_chunk + place.lap
    request = SampleRequest(
        leaf=leaf,
        seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, window),
        count=config.pairs_per_call,
        draw=_draw(seed, place.lap),
        chunk=chunk,
        rendering=forms[place.form],
    )
    for kind in _pair_kinds(config):
        if kind == "retrieval":
            rng = random.Random(f"{seed} {leaf.path} {window} others")
            others = _choose_others(leaf, place.chunk, config.knowledge, borrowed, rng)
            request = replace(request, kind=kind, others=others)
        yield request
    if "focal" in config.knowledge.kinds:
        yield replace(request, kind="focal", others=())


def _choose_others(
    leaf: Leaf, own: int, options: KnowledgeConfig, borrowed: Borrowed, rng: random.Random
) -> tuple[Chunk, ...]:
    """Half of the distractors from the same leaf, which are the harder ones; fewer where there are
    not so many."""
    chunks, wanted = chunks_of(leaf), options.num_distractors
    drawn = rng.sample(range(len(chunks)), min(len(chunks), wanted + 1))
    near = [chunks[place] for place in drawn if place != own][:wanted]
    known = {chunks[own].id, *(chunk.id for chunk in near)}
    drawn_far = rng.sample(borrowed.chunks, min(len(borrowed.chunks), 2 * wanted + 1))
    num_far = max(wanted // 2, wanted - len(near))
    far = [chunk for chunk in drawn_far if chunk.id not in known][:num_far]
    return (*near[: wanted - len(far)], *far)


def _skill_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, borrowed: Borrowed
) -> Iterator[SampleRequest]:
    left, call = num_asked(leaf, config), 0
    while left > 0:
        count = min(left, config.pairs_per_call)
        yield _skill_request(leaf, config, seed, call, count, borrowed)
        left -= count
        call += 1


def _skill_request(
    leaf: Leaf, config: GenerateConfig, seed: int, call: int, count: int, borrowed: Borrowed
) -> SampleRequest:
    is_pooled = config.sampling == "pooled"
    others = borrowed.seeds_like(leaf) if is_pooled else None
    return SampleRequest(
        leaf=leaf,
        seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, call, others),
        count=count,
        draw=_draw(seed, call),
        is_pooled=is_pooled,
    )


def _spread(chunks: tuple[Chunk, ...], call: int) -> Chunk:
    """Step through the chunks by a prime, so that few calls still reach all parts of a text."""
    lap, place = divmod(call, len(chunks))
    return chunks[(place * 7919 + lap) % len(chunks)]


def _draw(seed: int, call: int) -> int:
    return seed % SEEDS_APART * DRAWS_PER_SEED + call


def _choose_seeds(
    leaf: Leaf, num_shown: int, seed: int, window: int, pooled: Sequence[Seed] | None = None
) -> tuple[Seed, ...]:
    """Each seed leads in its turn; the others with it, of the leaf or of `pooled`, and their order,
    are drawn."""
    if not leaf.seeds:
        return ()
    rng = random.Random(f"{seed} {leaf.path} {window}")
    place = window % len(leaf.seeds)
    lead = leaf.seeds[place]
    if pooled is None:
        others = [*leaf.seeds[:place], *leaf.seeds[place + 1 :]]
        shown = [lead, *rng.sample(others, min(len(others), num_shown - 1))]
    else:
        drawn = rng.sample(pooled, min(len(pooled), num_shown))
        shown = [lead, *(other for other in drawn if other.id != lead.id)][:num_shown]
    rng.shuffle(shown)
    return tuple(shown)
