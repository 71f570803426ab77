"""Which calls a leaf takes: how many, which seeds each shows, and with which draw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from feldspar.config import GenerateConfig
from feldspar.generate.staff import Work
from feldspar.records import Chunk, Leaf, Seed

DRAWS_PER_SEED = 2**20
"""Draws that one seed of a recipe may use; exams take the upper half."""
EXAM_DRAWS = DRAWS_PER_SEED // 2
SEEDS_APART = 1024
"""Seeds of recipes that draw apart; draws then stay below 2^30, which every server takes."""


def generation_works(leaf: Leaf, config: GenerateConfig, seed: int) -> Iterator[Work]:
    """Every call for training samples of a leaf, in order; with a target, the first round's."""
    if config.target is not None:
        num_calls = -(-config.target // config.pairs_per_call)
        yield from target_works(leaf, config, seed, 0, num_calls)
        return
    if leaf.branch == "knowledge":
        for place, chunk in enumerate(chunks_of(leaf)):
            for call in range(config.calls_per_chunk):
                window = place * config.calls_per_chunk + call
                yield Work(
                    leaf=leaf,
                    seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, window),
                    count=config.pairs_per_call,
                    draw=_draw(seed, call),
                    chunk=chunk,
                )
        return
    left = num_asked(leaf, config)
    call = 0
    while left > 0:
        count = min(left, config.pairs_per_call)
        seeds = _choose_seeds(leaf, config.seeds_per_prompt, seed, call)
        yield Work(leaf=leaf, seeds=seeds, count=count, draw=_draw(seed, call))
        left -= count
        call += 1


def num_asked(leaf: Leaf, config: GenerateConfig) -> int:
    """Training samples that will be asked for in a leaf, at least."""
    if config.target is not None:
        num_calls = -(-config.target // config.pairs_per_call)
        return 0 if note_on(leaf) else num_calls * config.pairs_per_call
    if leaf.branch == "knowledge":
        return len(chunks_of(leaf)) * config.calls_per_chunk * config.pairs_per_call
    if not leaf.seeds:
        return 0
    return config.samples_per_leaf or config.samples_per_seed * len(leaf.seeds)


def target_works(
    leaf: Leaf, config: GenerateConfig, seed: int, first: int, num_calls: int
) -> Iterator[Work]:
    """Calls number `first` and on; the chunks of a knowledge leaf take turns.

    They are the calls of a run without a target, in another order, so neither pays for the other.
    """
    chunks = chunks_of(leaf) if leaf.branch == "knowledge" else ()
    for call in range(first, first + num_calls) if not note_on(leaf) else ():
        lap, place = divmod(call, len(chunks)) if chunks else (call, 0)
        window = place * config.calls_per_chunk + lap if chunks else call
        yield Work(
            leaf=leaf,
            seeds=_choose_seeds(leaf, config.seeds_per_prompt, seed, window),
            count=config.pairs_per_call,
            draw=_draw(seed, lap),
            chunk=chunks[place] if chunks else None,
        )


def num_exam_items(leaf: Leaf, config: GenerateConfig, seed: int) -> int:
    """How many items a leaf's exam is topped up to: `exam_items`, or a quarter of those asked for.

    What an exam asks is not taught, so an exam as large as what a small leaf can yield would leave
    nothing to train on.
    """
    asked = sum(work.count for work in generation_works(leaf, config, seed))
    return min(config.exam_items, asked // 4)


def exam_works(
    leaf: Leaf, config: GenerateConfig, seed: int, first: int, num_calls: int
) -> list[Work]:
    """Calls number `first` and on for exam questions: draws that no training sample has."""
    chunks = chunks_of(leaf) if leaf.branch == "knowledge" else ()
    if note_on(leaf):
        return []
    return [
        Work(
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
            num_tokens=len(text.split()),
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


def _spread(chunks: tuple[Chunk, ...], call: int) -> Chunk:
    """Step through the chunks by a prime, so that few calls still reach all parts of a text."""
    lap, place = divmod(call, len(chunks))
    return chunks[(place * 7919 + lap) % len(chunks)]


def _draw(seed: int, call: int) -> int:
    return seed % SEEDS_APART * DRAWS_PER_SEED + call


def _choose_seeds(leaf: Leaf, num_shown: int, seed: int, window: int) -> tuple[Seed, ...]:
    """Each seed leads in its turn; the others with it, and their order, are drawn."""
    if not leaf.seeds:
        return ()
    rng = random.Random(f"{seed} {leaf.path} {window}")
    lead = window % len(leaf.seeds)
    others = [*leaf.seeds[:lead], *leaf.seeds[lead + 1 :]]
    shown = [leaf.seeds[lead], *rng.sample(others, min(len(others), num_shown - 1))]
    rng.shuffle(shown)
    return tuple(shown)
