from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, Fault, answer_as_expert

from feldspar.config import GenerateConfig, TeacherConfig
from feldspar.errors import TeacherError
from feldspar.generate import estimate, generate_samples, make_exams, read_funnel
from feldspar.records import Chunk, ExamItem, Leaf, Sample, Seed
from feldspar.steps import Workspace
from feldspar.teacher import Journal, open_teacher

TEACHER = TeacherConfig(concurrency=16, max_retries=3)
CONFIG = GenerateConfig(samples_per_seed=4, calls_per_chunk=2, exam_items=6)
HOMES = [("Zorbo", "Tarn"), ("Mirad", "Ulm"), ("Bel", "Hove"), ("Gil", "Wick"), ("Nor", "Lydd")]


def seeds(*pairs: tuple[str, str], context: str | None = None) -> tuple[Seed, ...]:
    return tuple(
        Seed(id=f"s{number}", question=question, answer=answer, context=context)
        for number, (question, answer) in enumerate(pairs)
    )


SUMS = Leaf(
    path="foundational_skills/sums",
    branch="foundational",
    task_description="Add two numbers.",
    seeds=seeds(("What is 1 + 1?", "1 + 1 = 2."), ("What is 2 + 3?", "2 + 3 = 5.")),
    exam_seeds=seeds(("What is 7 + 8?", "7 + 8 = 15.")),
)
BASKETS = Leaf(
    path="compositional_skills/baskets",
    branch="compositional",
    task_description="Count what is there.",
    seeds=seeds(("What is 1 + 1?", "1 + 1 = 2."), context="Basket 1"),
)
TOWN = Leaf(
    path="knowledge/town",
    branch="knowledge",
    task_description="Where people live.",
    seeds=seeds(("Where does Ann live?", "Ann lives in Rome.")),
    chunks=tuple(
        Chunk(id=f"c{n}", document="d", text=f"The home of {a} is {b}. The home of {c} is {d}.",
              num_tokens=9)
        for n, ((a, b), (c, d)) in enumerate(pairwise(HOMES))
    ),
)  # fmt: skip
LEAVES = [SUMS, BASKETS, TOWN]


def generate(
    server: FakeTeacher,
    here: Path,
    *,
    leaves: Iterable[Leaf] = LEAVES,
    config: GenerateConfig = CONFIG,
    avoid: Iterable[ExamItem] = (),
    journal: str = "journal",
) -> list[Sample]:
    with Journal(here / journal) as opened:
        teacher = open_teacher(TEACHER, server.url, opened)
        return list(
            generate_samples(
                Workspace(folder=here),
                leaves,
                config,
                teacher=teacher,
                judge=teacher,
                avoid=avoid,
                seed=1,
            )
        )


def examine(
    server: FakeTeacher,
    here: Path,
    leaves: Iterable[Leaf] = LEAVES,
    config: GenerateConfig = CONFIG,
) -> list[ExamItem]:
    with Journal(here / "journal") as opened:
        teacher = open_teacher(TEACHER, server.url, opened)
        exams = make_exams(
            Workspace(folder=here), leaves, config, teacher=teacher, judge=teacher, seed=1
        )
        return list(exams)


def reasons(samples: Iterable[Sample]) -> Counter[str]:
    return Counter((sample.rejected_because or "kept").partition(" (")[0] for sample in samples)


def test_each_branch_goes_through_its_stages(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        samples = generate(server, tmp_path)
        stages = server.stages()
    by_leaf = {leaf.path: [s for s in samples if s.leaf == leaf.path] for leaf in LEAVES}
    assert [len(by_leaf[leaf.path]) for leaf in LEAVES] == [8, 4, 32]
    assert stages["skill-context"] == 1
    assert stages["skill-questions"] == 2 + 4
    assert stages["knowledge-pairs"] == 8
    for sample in by_leaf[SUMS.path]:
        assert sample.is_kept
        assert sample.answer.startswith(sample.question.removeprefix("What is ").rstrip("?"))
        assert [(j.criterion, j.value) for j in sample.judgments] == [("fit", 1), ("answer", 3)]
        assert set(sample.seeds) == {"s0", "s1"}
    assert all(str(s.context).startswith("Basket") for s in by_leaf[BASKETS.path])
    for sample in by_leaf[TOWN.path]:
        assert sample.context in {chunk.text for chunk in TOWN.chunks}
        assert [j.criterion for j in sample.judgments] == ["faithful", "relevant"]
    assert len({sample.id for sample in samples}) == len(samples)
    assert reasons(by_leaf[TOWN.path]).keys() == {"kept", "duplicate: same question and answer"}


def test_a_second_run_asks_nothing_and_writes_the_same(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        first = generate(server, tmp_path)
        funnel = (tmp_path / "funnel.json").read_bytes()
        num_calls = len(server.calls)
        assert generate(server, tmp_path) == first
        assert len(server.calls) == num_calls
        assert (tmp_path / "funnel.json").read_bytes() == funnel


def test_latency_changes_nothing(tmp_path: Path) -> None:
    rng = random.Random(1)
    with (
        FakeTeacher() as quick,
        FakeTeacher(seconds=lambda call: rng.uniform(0, 0.05)) as slow,
    ):
        assert generate(quick, tmp_path, journal="a") == generate(slow, tmp_path, journal="b")


def test_faults_change_nothing(tmp_path: Path) -> None:
    faults = [Fault(429, {"Retry-After": "0.1"}), Fault(500), Fault(0), Fault(200, text='{"a')]

    def fault(call: Call) -> Fault | None:
        return call.rng.choice(faults) if call.attempt == 1 and call.rng.random() < 0.2 else None

    with FakeTeacher() as calm, FakeTeacher(fault=fault) as faulty:
        assert generate(calm, tmp_path, journal="a") == generate(faulty, tmp_path, journal="b")


def test_another_prompt_reuses_the_stages_before_it(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    header = "---\nrole: judge\nstage: judge-answer\nvariables: [question, answer]\n---\n"
    (tmp_path / "prompts" / "judge-answer.md.j2").write_text(
        header + "### Task\nRate.\n### Question\n{{ question }}\n### Answer\n{{ answer }}\n"
    )
    with FakeTeacher() as server:
        generate(server, tmp_path, leaves=[SUMS])
        server.calls.clear()
        config = CONFIG.model_copy(update={"prompts": str(tmp_path / "prompts")})
        generate(server, tmp_path, leaves=[SUMS], config=config)
        assert set(server.stages()) == {"judge-answer"}


def test_every_way_to_fall_has_its_reason_and_the_funnel_counts_it(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        question = call.section("Question")
        if call.stage == "skill-questions":
            names = ["1 + 1", "bomb", "mumble", "refuse", "empty", "3 + 4", "5 + 6"]
            return "".join(f"[Question]\nWhat is {name}?\n[End]\n" for name in names)
        if call.stage == "skill-answer" and "empty" in question:
            return "<think>nothing"
        if call.stage == "judge-answer" and "mumble" in question:
            return "Hm, hm."
        if call.stage == "judge-answer" and "3 + 4" in question:
            return "Rating: 1"
        return answer_as_expert(call)

    def fault(call: Call) -> Fault | None:
        is_refused = call.stage == "skill-answer" and "refuse" in call.section("Question")
        return Fault(400) if is_refused else None

    config = CONFIG.model_copy(update={"samples_per_leaf": 9, "pairs_per_call": 9})
    exam = ExamItem(id="i", exam="e", question="What is 5 + 6?", reference="11", branch=SUMS.branch)
    with FakeTeacher(answer, fault=fault) as server:
        samples = generate(server, tmp_path, leaves=[SUMS], config=config, avoid=[exam])
    assert [sample.rejected_because for sample in samples] == [
        "duplicate: same question and answer (as seed s0)",
        "judge: not fit",
        "judge: unreadable",
        "teacher: refused (400 as the test asked)",
        "format: empty answer",
        "judge: answer rated 1",
        "exam: asked there (e i, ROUGE-L 1.00)",
    ]
    (funnel,) = read_funnel(tmp_path / "funnel.json").leaves
    counts = (funnel.asked, funnel.answered, funnel.parsed, funnel.judged)
    assert (*counts, funnel.distinct, funnel.clean, funnel.kept) == (9, 8, 5, 2, 1, 0, 0)
    by_reason = {reason.reason: reason for reason in funnel.reasons}
    assert by_reason["format: fewer than asked for"].count == 2
    assert by_reason["teacher: refused"].examples[0].detail == "400 as the test asked"


def test_a_failed_first_call_stands_for_all_it_was_asked_for(tmp_path: Path) -> None:
    with FakeTeacher(lambda call: "I would rather not.") as server:
        samples = generate(server, tmp_path, leaves=[SUMS])
    assert [sample.rejected_because for sample in samples] == ["format: no readable block"] * 2
    (funnel,) = read_funnel(tmp_path / "funnel.json").leaves
    assert (funnel.asked, funnel.answered, funnel.parsed) == (8, 8, 0)
    assert funnel.reasons[0].count == 8


def test_a_reply_that_cannot_be_read_is_shown_in_the_funnel(tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        if call.stage == "skill-questions":
            chatter = "Certainly! Here is one. " + 100 * "word "
            return chatter if "Basket" in call.prompt else f"[Question]\nWho?\n[End]\n{chatter}"
        return "It depends." if call.stage == "judge-question" else answer_as_expert(call)

    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[SUMS, BASKETS])
    sums, baskets = read_funnel(tmp_path / "funnel.json").leaves
    shown = {r.reason: r.examples for leaf in (sums, baskets) for r in leaf.reasons}
    assert shown.keys() == {
        "judge: unreadable",
        "format: fewer than asked for",
        "format: no readable block",
    }
    assert {example.reply for example in shown["judge: unreadable"]} == {"It depends."}
    for example in shown["format: no readable block"]:
        assert example.reply.startswith("Certainly! Here is one. word")
        assert len(example.reply) == 200
    (example, _) = shown["format: fewer than asked for"]
    assert example.reply.startswith("[Question]\nWho?\n[End]\nCertainly!")
    assert not example.sample
    assert len(samples) == 2 + 4


def test_a_run_that_was_killed_has_spent_the_same(tmp_path: Path) -> None:
    """A refusal is a call, when it is met and when it is found in the journal."""

    def fault(call: Call) -> Fault | None:
        is_refused = call.stage == "skill-answer" and call.rng.random() < 0.4
        return Fault(400, text='{"error": {"message": "content policy"}}') if is_refused else None

    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
    with FakeTeacher(fault=fault) as server:
        generate(server, tmp_path / "whole")
        num_calls = len(server.calls)
        whole = (tmp_path / "whole" / "funnel.json").read_bytes()
        with Journal(tmp_path / "half" / "journal") as journal:
            teacher = open_teacher(TEACHER, server.url, journal)
            stream = generate_samples(
                Workspace(folder=tmp_path),
                LEAVES,
                CONFIG,
                teacher=teacher,
                judge=teacher,
                avoid=[],
                seed=1,
            )
            for _ in range(8):
                next(stream)
            stream.close()
        generate(server, tmp_path / "half")
    assert (tmp_path / "half" / "funnel.json").read_bytes() == whole
    funnel = read_funnel(tmp_path / "whole" / "funnel.json")
    assert funnel.spent.calls == num_calls
    assert any(reason.reason == "teacher: refused" for reason in funnel.leaves[0].reasons)


def test_a_reply_that_cannot_be_read_is_asked_for_once_more_with_a_complaint(
    tmp_path: Path,
) -> None:
    def answer(call: Call) -> str:
        is_first = len(call.body["messages"]) == 1
        return "Sure, here!" if is_first and "questions" in call.stage else answer_as_expert(call)

    with FakeTeacher(answer) as server:
        samples = generate(server, tmp_path, leaves=[SUMS])
        asked = [call for call in server.calls if call.stage == "skill-questions"]
    assert reasons(samples) == {"kept": 8}
    assert [len(call.body["messages"]) for call in asked].count(3) == len(asked) / 2
    (complained, *_) = (c.body["messages"] for c in asked if len(c.body["messages"]) == 3)
    assert complained[1] == {"role": "assistant", "content": "Sure, here!"}
    assert "[Question] and [End]" in complained[2]["content"]


def test_a_leaf_without_anything_to_ask_about_says_so(tmp_path: Path) -> None:
    empty = Leaf(path="knowledge/x", branch="knowledge", task_description="t", seeds=SUMS.seeds)
    with FakeTeacher() as server:
        assert generate(server, tmp_path, leaves=[empty, SUMS])[0].leaf == SUMS.path
    first, second = read_funnel(tmp_path / "funnel.json").leaves
    assert (first.leaf, first.asked, second.kept) == ("knowledge/x", 0, 8)
    assert "no document" in first.note


def test_without_judging_nothing_is_judged(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        config = CONFIG.model_copy(update={"judge": False})
        generate(server, tmp_path, config=config)
        assert not any(stage.startswith("judge") for stage in server.stages())


def test_a_stopped_run_ends_with_the_cause(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"samples_per_leaf": 400})
    with (
        FakeTeacher(fault=lambda call: Fault(403)) as server,
        pytest.raises(TeacherError, match="failure_budget"),
    ):
        generate(server, tmp_path, leaves=[SUMS], config=config)


def test_an_iterator_left_half_way_lets_go(tmp_path: Path) -> None:
    with FakeTeacher() as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(TEACHER, server.url, journal)
        stream = generate_samples(
            Workspace(folder=tmp_path),
            iter(LEAVES),
            CONFIG,
            teacher=teacher,
            judge=teacher,
            avoid=[],
            seed=1,
        )
        next(stream)
        stream.close()
        assert generate(server, tmp_path)


def test_an_exam_takes_no_more_than_a_quarter_of_what_a_leaf_is_asked_for(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"samples_per_leaf": 12, "exam_items": 20})
    with FakeTeacher() as server:
        items = examine(server, tmp_path, config=config)
    assert len([item for item in items if item.leaf == SUMS.path]) == 3


def test_exams_are_topped_up_judged_and_halved(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"samples_per_leaf": 24})
    with FakeTeacher() as server:
        items = examine(server, tmp_path, config=config)
        exam_calls = {json.dumps(call.body, sort_keys=True) for call in server.calls}
        server.calls.clear()
        samples = generate(server, tmp_path, avoid=items)
        assert not exam_calls & {
            json.dumps(call.body, sort_keys=True)
            for call in server.calls
            if not call.stage.startswith("judge")
        }
    sums = [item for item in items if item.leaf == SUMS.path]
    assert Counter(item.origin for item in sums) == {"held-out": 1, "generated": 5}
    assert Counter(item.use for item in sums if item.origin == "generated") == {
        "select": 2,
        "report": 3,
    }
    assert {item.exam for item in sums} == {f"leaf:{SUMS.path}"}
    for item in sums:
        assert item.accepted == (item.reference.rpartition("= ")[2].rstrip("."),)
    town = [item for item in items if item.leaf == TOWN.path]
    assert all(item.context is None for item in town)
    assert len({item.question for item in town}) == len(town)
    taught = {sample.question for sample in samples if sample.is_kept}
    assert not taught & {item.question for item in items if item.context is None}


def test_exams_do_not_depend_on_latency(tmp_path: Path) -> None:
    rng = random.Random(1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with FakeTeacher() as quick, FakeTeacher(seconds=lambda call: rng.uniform(0, 0.03)) as slow:
        assert examine(quick, tmp_path / "a") == examine(slow, tmp_path / "b")


def test_the_estimate_is_what_is_asked_when_nothing_falls(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"exam_items": 0})
    with FakeTeacher() as server:
        generate(server, tmp_path, config=config)
        # The teacher gives some pairs twice, and the same judgment is never paid twice.
        pairs = 8 * (1 + 4 * 2)
        skills = sum(n for s, n in server.stages().items() if s not in KNOWLEDGE_STAGES)
    costs = estimate(LEAVES, config)
    assert sum(cost.calls for cost in costs) == skills + pairs
    assert all(cost.prompt_tokens > 100 * cost.calls for cost in costs)
    assert {cost.step for cost in costs} == {"samples"}
    assert {cost.step for cost in estimate(LEAVES, CONFIG)} == {"exams", "samples"}


KNOWLEDGE_STAGES = ("knowledge-pairs", "judge-faithful", "judge-relevant")

MOST_WAITING = 8
KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {helpers!r}]
from test_samples import SUMS, generate
class Server: url = sys.argv[1]
from feldspar.config import GenerateConfig
from feldspar.teacher import journal as module
module.MOST_WAITING = {most}
config = GenerateConfig(samples_per_leaf=400)
journal = (*sys.argv[3:], "journal")[0]
print(len(generate(Server, Path(sys.argv[2]), leaves=[SUMS], config=config, journal=journal)))
""".format(
    tests=str(Path(__file__).parent),
    helpers=str(Path(__file__).parents[1] / "teacher"),
    most=MOST_WAITING,
)


@pytest.mark.slow
def test_after_a_kill_only_what_was_in_flight_is_paid_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    with FakeTeacher(seconds=lambda call: 0.02) as server:
        for num_served in (150, 400):
            process = subprocess.Popen([*command, server.url, str(tmp_path)])
            while server.num_served < num_served:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = subprocess.run(
            [*command, server.url, str(tmp_path)], capture_output=True, text=True, check=True
        )
        num_paid_again = server.num_served - len(server.served)
    assert int(done.stdout) == 400
    # At each kill: calls at the server, answers that wait, and answers that are being committed.
    num_uncommitted = 2 * (MOST_WAITING + TEACHER.concurrency)
    assert num_paid_again <= 2 * (TEACHER.concurrency + num_uncommitted)


@pytest.mark.slow
def test_a_journal_is_shared_by_two_processes_at_once(tmp_path: Path) -> None:
    with FakeTeacher(seconds=lambda call: 0.01) as server:
        both = []
        for name in ("one", "other"):
            # Each run has a folder of its own, and one process writes it.
            (tmp_path / name).mkdir()
            command = [sys.executable, "-c", KILLED, server.url, str(tmp_path / name), "../journal"]
            both.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert [process.communicate()[0] for process in both] == [b"400\n", b"400\n"]


def test_leaves_and_draws_keep_their_order(tmp_path: Path) -> None:
    leaves = [replace(SUMS, path=f"foundational_skills/sums{number}") for number in range(40)]
    with FakeTeacher() as server:
        samples = generate(server, tmp_path, leaves=leaves)
    assert [leaf.path for leaf in leaves] == list(dict.fromkeys(sample.leaf for sample in samples))
    draws = [sample.draw for sample in samples if sample.leaf == leaves[7].path]
    assert draws == sorted(draws)
    funnels = read_funnel(tmp_path / "funnel.json").leaves
    assert [funnel.leaf for funnel in funnels] == [leaf.path for leaf in leaves]
