"""MT-Bench on questions about a world, with prompts of our own in the published layout."""

import json
from contextlib import asynccontextmanager, contextmanager

from echo_server import in_thread

from feldspar.config import MTBenchConfig, StudentConfig, TeacherConfig, WorldConfig
from feldspar.evaluate.examinee import row_name
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
from feldspar.evaluate.mt_bench.run import score_mt_bench
from feldspar.evaluate.served_examinee import ServedExaminee
from feldspar.steps import Workspace
from feldspar.teacher import Journal, open_teacher
from feldspar.world.serve import serving
from feldspar.world.truth import World

WORLD = WorldConfig(seed=3, num_old=12, num_new=10)
SINGLE = (
    'Rate the answer as "[[rating]]", such as "[[5]]".\n\n[Question]\n{question}\n\n'
    "[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
)
MULTI = (
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n{question_1}\n\n"
    "### Assistant A:\n{answer_1}\n\n### User:\n{question_2}\n\n### Assistant A:\n{answer_2}\n\n"
    "<|The End of Assistant A's Conversation with User|>"
)
PAIR = (
    "[User Question]\n{question}\n\n[The Start of Assistant A's Answer]\n{answer_a}\n"
    "[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n{answer_b}\n"
    "[The End of Assistant B's Answer]"
)
PAIR_MULTI = "\n\n".join(
    f"<|The Start of Assistant {a}'s Conversation with User|>\n\n### User:\n{{question_1}}\n\n"
    f"### Assistant {a}:\n{{answer_{a.lower()}_1}}\n\n### User:\n{{question_2}}\n\n"
    f"### Assistant {a}:\n{{answer_{a.lower()}_2}}\n\n"
    f"<|The End of Assistant {a}'s Conversation with User|>"
    for a in "AB"
)
GRADE = 'Give "[[rating]]".'
CHOOSE = 'Say "[[A]]", "[[B]]" or "[[C]]".'


def write_bench(folder, config=WORLD, num_questions=10):
    """Two-turn questions about a world, in FastChat's layout; gives the right answers."""
    world = World.make(config.seed, config.num_old, config.num_new)
    solutions = world_solutions(world)
    rows, right = [], []
    for number in range(num_questions):
        pair = solutions[2 * number : 2 * number + 2]
        turns = [solution.question for solution in pair]
        category = ("writing", "stem", "extraction")[number % 3]
        rows.append({"question_id": number, "category": category, "turns": turns})
        right.append({"question_id": number, "choices": [{"turns": [s.answer for s in pair]}]})
    prompts = [
        ("single-v1", "You are a helpful assistant.", SINGLE),
        ("single-v1-multi-turn", GRADE, MULTI),
        ("pair-v2", CHOOSE, PAIR),
        ("pair-v2-multi-turn", CHOOSE, PAIR_MULTI),
    ]
    named = [{"name": n, "system_prompt": s, "prompt_template": t} for n, s, t in prompts]
    (folder / "reference_answer").mkdir(parents=True)
    for name, lines in {
        "question.jsonl": rows, "reference_answer/gpt-4.jsonl": [], "judge_prompts.jsonl": named,
        "right.jsonl": right,
    }.items():  # fmt: skip
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def world_solutions(world):
    return [
        solution for exam in world.exams().values() for solution in exam if not solution.context
    ]


@asynccontextmanager
async def embedded_teacher(rates):
    """The world's teacher in this process, since starting another takes longer than the test."""
    async with serving(WORLD, rates) as teacher:
        yield teacher.url


@contextmanager
def judging(folder, rates):
    with in_thread(embedded_teacher(rates)) as url, Journal(folder / "journal.sqlite") as journal:
        yield open_teacher(TeacherConfig(), url, journal)


def examinee_of(model, **more):
    """A served model next to a checkpoint that is called `base`."""
    return ServedExaminee(model, row_name(model.model, ["base"]), **more)


def run_bench(bench, checkpoint, judge, folder, server=None, **config):
    """Scores of one checkpoint, and of a server's model where there is one."""
    config = MTBenchConfig(**{"data": str(bench), "max_new_tokens": 8} | config)
    return list(
        score_mt_bench(
            Workspace(folder=folder),
            [("base", checkpoint)],
            read_mt_bench(find_mt_bench(config)),
            config,
            judge=judge,
            student=StudentConfig(base="tiny", device="cpu"),
            server=None if server is None else examinee_of(server),
            num_resamples=50,
            seed=1,
        )
    )
