from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_samples import BASKETS, CONFIG, SUMS, TOWN, generate, seeds

from feldspar.config import GenerateConfig, KnowledgeConfig
from feldspar.generate import estimate, read_funnel
from feldspar.records import Chunk, Leaf, Sample

TEXTS = {chunk.text for chunk in TOWN.chunks}
RIVERS = replace(
    TOWN,
    path="knowledge/rivers",
    chunks=tuple(Chunk(id=f"r{n}", document="r", text=f"River {n}.", num_tokens=2) for n in "12"),
)
NO_EXAMS = CONFIG.model_copy(update={"exam_items": 0})


def with_options(config: GenerateConfig = NO_EXAMS, **options: object) -> GenerateConfig:
    return config.model_copy(update={"knowledge": KnowledgeConfig.model_validate(options)})


def inventive(call: Call) -> str:
    """Never asks the same twice; puts a passage into other words by naming the form."""
    if call.stage.startswith("render-"):
        return f"{call.stage}: {call.section('Document')}"
    if call.stage == "knowledge-pairs":
        numbers = [call.rng.randrange(10**9) + n for n in range(int(call.section("How many")))]
        return "".join(f"[Question]\nWhat is {n}?\n[Answer]\n{n}.\n[End]\n" for n in numbers)
    return answer_as_expert(call)


def estimated(leaves: list[Leaf], config: GenerateConfig) -> int:
    return sum(cost.calls for cost in estimate(leaves, config))


def of_kind(samples: list[Sample], kind: str) -> list[Sample]:
    return [sample for sample in samples if sample.kind == kind]


def test_each_chunk_is_rendered_once_asked_about_and_judged_against_itself(tmp_path: Path) -> None:
    config = with_options(renderings=("summary", "study"))
    with FakeTeacher(inventive) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        calls, stages = list(server.calls), server.stages()
    assert stages["render-summary"] == stages["render-study"] == len(TOWN.chunks)
    assert len(calls) == estimated([TOWN], config)
    asked = Counter(c.section("Document") for c in calls if c.stage == "knowledge-pairs")
    assert asked.keys() == TEXTS | {f"render-{f}: {t}" for t in TEXTS for f in ("summary", "study")}
    assert set(asked.values()) == {CONFIG.calls_per_chunk}
    assert {c.section("Document") for c in calls if c.stage == "judge-faithful"} == TEXTS
    assert Counter(s.rendering for s in samples) == dict.fromkeys(("", "summary", "study"), 32)
    assert len({sample.id for sample in samples}) == len(samples)
    plain = [replace(s, seeds=()) for s in samples if not s.rendering]
    with FakeTeacher(inventive) as server:
        alone = generate(server, tmp_path, leaves=[TOWN], config=NO_EXAMS, journal="other")
    assert Counter(s.chunk for s in alone) == Counter(s.chunk for s in plain)


def test_a_rendering_is_a_text_of_its_own_judged_against_its_chunk(tmp_path: Path) -> None:
    config = with_options(renderings=("summary", "facts"), kinds=("pair", "rendering"))
    with FakeTeacher(inventive) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        assert len(server.calls) == estimated([TOWN], config)
        asked = [c for c in server.calls if c.stage == "judge-faithful"]
    texts = of_kind(samples, "document")
    assert {s.answer for s in texts} == {
        f"render-{f}: {t}" for t in TEXTS for f in ("summary", "facts")
    }
    assert {(s.question, s.context, len(s.judgments)) for s in texts} == {("", None, 1)}
    assert {s.answer for s in texts} <= {c.section("Answer") for c in asked}
    assert {(s.rendering, s.teacher != "") for s in texts} == {("summary", True), ("facts", True)}
    with FakeTeacher(
        lambda c: "Verdict: NO" if c.stage == "judge-faithful" else inventive(c)
    ) as server:
        samples = generate(server, tmp_path / "no", leaves=[TOWN], config=config)
    assert {s.rejected_because for s in of_kind(samples, "document")} == {"judge: not faithful"}
    with pytest.raises(ValueError, match="name `renderings`"):
        with_options(kinds=("rendering",))


def test_a_rendering_that_cannot_be_had_costs_its_samples_alone(tmp_path: Path) -> None:
    config = with_options(renderings=("facts",))

    def answer(call: Call) -> str:
        return "<think>hm" if call.stage == "render-facts" else inventive(call)

    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
    fallen = [s for s in samples if s.rendering]
    assert {s.rejected_because for s in fallen} == {"format: empty answer"}
    (funnel,) = read_funnel(tmp_path / "funnel.json").leaves
    assert (funnel.asked, funnel.parsed, funnel.kept) == (64, 32, 32)


def test_texts_and_retrieval_samples_cost_no_call_beside_pairs(tmp_path: Path) -> None:
    leaves = [TOWN, RIVERS]
    with FakeTeacher(inventive) as server:
        plain = generate(server, tmp_path, leaves=leaves, config=NO_EXAMS)
        num_calls = len(server.calls)
        config = with_options(kinds=("pair", "document", "retrieval"))
        samples = generate(server, tmp_path, leaves=leaves, config=config)
        assert len(server.calls) == num_calls == estimated(leaves, config)
        assert generate(server, tmp_path, leaves=leaves, config=config) == samples
    assert of_kind(samples, "pair") == plain
    texts = of_kind(samples, "document")
    assert [s.answer for s in texts] == [c.text for leaf in leaves for c in leaf.chunks]
    assert {(s.question, s.context, s.teacher) for s in texts} == {("", None, "")}
    shown = of_kind(samples, "retrieval")
    assert [(s.question, s.answer) for s in shown] == [(s.question, s.answer) for s in plain]
    chunks = {chunk.id: chunk.text for leaf in leaves for chunk in leaf.chunks}
    places = Counter()
    for sample in shown:
        passages = re.split(r"(?:\n\n)?Passage \d:\n", str(sample.context))[1:]
        assert len(set(passages)) == len(passages) == 4
        assert set(passages) <= set(chunks.values())
        places[passages.index(chunks[str(sample.chunk)])] += 1
    assert set(places) == {0, 1, 2, 3}
    assert any("River" in str(s.context) for s in shown if s.leaf == TOWN.path)
    assert sum(f.kept for f in read_funnel(tmp_path / "funnel.json").leaves) == len(samples)


def test_distractors_may_be_of_the_leaf_alone(tmp_path: Path) -> None:
    config = with_options(kinds=("retrieval",), distractors="leaf", num_distractors=2)
    with FakeTeacher(inventive) as server:
        samples = generate(server, tmp_path, leaves=[TOWN, RIVERS], config=config)
        assert len(server.calls) == estimated([TOWN, RIVERS], config)
    assert {sample.kind for sample in samples} == {"retrieval"}
    for sample in samples:
        assert ("River" in str(sample.context)) is (sample.leaf == RIVERS.path)
        assert str(sample.context).count("Passage ") == (3 if sample.leaf == TOWN.path else 2)


def test_a_target_counts_pairs_and_the_rest_comes_with_them(tmp_path: Path) -> None:
    config = with_options(
        GenerateConfig(target=10), kinds=("pair", "document", "retrieval"), renderings=("facts",)
    )
    with FakeTeacher(inventive) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
    kept = Counter(sample.kind for sample in samples if sample.is_kept)
    assert kept == {"pair": 10, "document": 4, "retrieval": 12}
    config = with_options(GenerateConfig(target=10), kinds=("document",))
    with FakeTeacher(inventive) as server:
        samples = generate(server, tmp_path, leaves=[TOWN], config=config)
        assert not server.calls
    assert len(samples) == len(TOWN.chunks)


def test_a_judge_left_out_is_not_asked(tmp_path: Path) -> None:
    config = NO_EXAMS.model_copy(update={"judge_skips": ("faithful", "fit")})
    with FakeTeacher(inventive) as server:
        generate(server, tmp_path, config=config)
        judges = {stage for stage in server.stages() if stage.startswith("judge")}
    assert judges == {"judge-relevant", "judge-answer"}
    with FakeTeacher(inventive) as server:
        generate(server, tmp_path, leaves=[TOWN], config=config, journal="alone")
        assert len(server.calls) == estimated([TOWN], config)


PRODUCTS = replace(
    SUMS,
    path="foundational_skills/products",
    task_description="Multiply.",
    seeds=seeds(*((f"What is {n} * {n}?", f"{n * n}") for n in range(2, 9))),
)
PRODUCTS = replace(PRODUCTS, seeds=tuple(replace(s, id=f"p{s.id}") for s in PRODUCTS.seeds))


def prompts_of(leaves: list[Leaf], here: Path, **changes: object) -> dict[str, list[Call]]:
    config = NO_EXAMS.model_copy(update=changes)
    with FakeTeacher() as server:
        samples = generate(server, here, leaves=leaves, config=config, journal=str(changes))
        calls = [call for call in server.calls if call.stage == "skill-questions"]
        assert len(samples) == config.samples_per_seed * sum(len(leaf.seeds) for leaf in leaves)
    return {s: [c for c in calls if s in c.section("Examples")] for s in ("+", "*")}


def test_pooled_prompts_show_seeds_from_anywhere_in_proportion(tmp_path: Path) -> None:
    leaves = [SUMS, PRODUCTS]
    local = prompts_of(leaves, tmp_path, sampling="leaf")
    assert not {id(c) for c in local["+"]} & {id(c) for c in local["*"]}
    pooled = prompts_of(leaves, tmp_path, sampling="pooled")
    assert {id(c) for c in pooled["+"]} & {id(c) for c in pooled["*"]}
    tasks = {call.section("Task") for calls in pooled.values() for call in calls}
    assert len(tasks) == 1
    assert not any("Add two" in task or "Multiply" in task for task in tasks)
    single = prompts_of(leaves, tmp_path, sampling="pooled", seeds_per_prompt=1)
    assert len(single["+"]) == len(SUMS.seeds)
    assert len(single["*"]) == len(PRODUCTS.seeds)


def test_what_was_pooled_is_compared_over_all_leaves(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        if call.stage == "skill-questions":
            return "[Question]\nWhat is 40 + 2?\n[End]"
        return answer_as_expert(call)

    config = NO_EXAMS.model_copy(update={"pairs_per_call": 1, "samples_per_seed": 1})
    kept = {}
    for sampling in ("leaf", "pooled"):
        with FakeTeacher(answer) as server:
            changed = config.model_copy(update={"sampling": sampling})
            samples = generate(server, tmp_path, leaves=[SUMS, PRODUCTS], config=changed)
        kept[sampling] = [sample.leaf for sample in samples if sample.is_kept]
    assert kept == {"leaf": [SUMS.path, PRODUCTS.path], "pooled": [SUMS.path]}


def test_pooled_sampling_asks_by_seed() -> None:
    for more in ({"target": 5}, {"samples_per_leaf": 5}):
        with pytest.raises(ValueError, match="samples_per_seed alone"):
            GenerateConfig(sampling="pooled", **more)


def test_grounded_skills_are_pooled_among_themselves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = NO_EXAMS.model_copy(update={"sampling": "pooled"})
    with FakeTeacher() as server, caplog.at_level(logging.ERROR):
        generate(server, tmp_path, leaves=[SUMS, BASKETS], config=config)
        contexts = [call for call in server.calls if call.stage == "skill-context"]
    assert contexts
    assert all("Basket 1" in call.section("Examples") for call in contexts)
