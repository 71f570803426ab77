"""The servers that a recipe names: who is there, and what each can do. One trial at most."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

from feldspar.ahead.checks import Note, Subject
from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.errors import RecipeError, TeacherError
from feldspar.evaluate.exams.read import exam_files, read_exams
from feldspar.models.model import CannotScore
from feldspar.models.opening import access_of, find_model
from feldspar.models.served import NotFound, ServedModel, Wanted, find_served
from feldspar.runs import open_step

_TRIAL = "Seven is a number between 6 and 8."
_CLASSIFIER = "prefer.reward_model_server"
_LATER = "asked after training, so that it may be started by then"


def teacher(subject: Subject) -> str | None:
    """A run looks for it itself, right before the first call."""
    recipe = subject.recipe
    if recipe.taxonomy is None and (recipe.judge is not None or not _is_judged(subject)):
        return None
    return _writer(subject, subject.recipe.teacher, "teacher")


def judge(subject: Subject) -> str | None:
    """As the teacher. Raises RecipeError where only ready rows are trained on and nobody is named
    who can judge what is to be judged."""
    recipe = subject.recipe
    if recipe.judge is not None:
        return _writer(subject, recipe.judge, "judge")
    is_nobody = recipe.taxonomy is None and recipe.teacher.is_embedded and recipe.world is None
    if is_nobody and (judged := _is_judged(subject)):
        raise RecipeError(f"{judged} needs a judge, and the recipe names none; add [judge]")
    return None


def mt_bench_judge(subject: Subject) -> str | None:
    """MT-Bench's own judge, where it has one."""
    config = subject.recipe.evaluate.mt_bench
    if config is None or config.judge is None or not subject.reaches("preferred"):
        return None
    return None if _is_done(subject, "mt-bench") else _later(config.judge, "judge of MT-Bench")


def measured(subject: Subject) -> str | None:
    """The model of `evaluate.server`, with log-probabilities where a benchmark needs them."""
    evaluate = subject.recipe.evaluate
    config = evaluate.server
    if config is None or not subject.reaches("scores") or not _has_url(config):
        return None
    asked = [b for b in evaluate.benchmark if evaluate.asks_server(b.task)]
    if not asked or _is_done(subject, "benchmarks"):
        return None if _is_done(subject, "mt-bench") else _later(config, "evaluate.server")
    from feldspar.evaluate.benchmarks.tasks import needs_log_probs

    found = _later(config, "evaluate.server")
    if isinstance(found, Note):
        return found
    needing = [b.task for b in asked if needs_log_probs(b)]
    if needing:
        try:
            asyncio.run(_try(find_model(config, config.endpoint, who="evaluate.server"), _TRIAL))
        except (Refused, CannotScore) as error:
            raise RecipeError(
                f"evaluate.server at {config.endpoint} tells no log-probabilities of prompts "
                f"({error}), which {needing[0]} needs; vLLM's completions do, or name in "
                "evaluate.server_tasks what it can do"
            ) from error
    return f"{found}{', tells log-probabilities' if needing else ''}"


def reward_servers(subject: Subject) -> str | None:
    """Those of the reward pair, which must tell log-probabilities of token ids; or that of the
    reward model, which must reward a conversation."""
    config = subject.recipe.prefer
    if config is None or not subject.reaches("preferred") or _is_done(subject, "preferred"):
        return None
    found = [
        _scores(role, server, folder)
        for role, server, folder in (
            ("prefer.aligned_server", config.aligned_server, config.aligned),
            ("prefer.base_server", config.base_server, config.base),
        )
        if server is not None and folder is not None and _has_url(server)
    ]
    classifier = config.reward_model_server
    # Beside a log ratio it is a control of `feldspar agree` alone.
    if config.reward == "reward-model" and classifier is not None and _has_url(classifier):
        found.append(_tried(_CLASSIFIER, classifier, _reward_one, "rewards conversations"))
    notes = [one for one in found if isinstance(one, Note)]
    return (notes or found or [None])[0]


def commands(subject: Subject) -> str | None:
    """Programs that the run starts."""
    found = []
    for role, config in subject.recipe.asked_models().items():
        if config.command is None or config.engine == "ray":
            continue
        program = shlex.split(config.command)[0]
        if shutil.which(program) is None:
            raise RecipeError(f"{role}: no program {program!r} is installed; mend its `command`")
        found.append(program)
    return ", ".join(found) or None


def cluster(subject: Subject) -> str | None:
    """The Ray cluster that commands and training are to start on. Raises RecipeError where it is
    not found."""
    on_ray = {
        name: config
        for name, config in subject.recipe.asked_models().items()
        if config.engine == "ray"
    }
    workers = subject.recipe.train.workers if subject.reaches("trained") else None
    if not on_ray and workers is None:
        return None
    # Only here, for it loads Ray.
    from feldspar.models.ray_server import RayEngine

    try:
        engine = RayEngine()
    except NoAnswers as error:
        raise RecipeError(error.sentence("servers")) from error
    largest = engine.most_gpus_of_a_node()
    for name, config in on_ray.items():
        if config.gpus_each > largest:
            return Note(
                f"{name}.gpus_each = {config.gpus_each}, and no node has more than {largest} GPUs "
                "now: its copies wait until one has"
            )
    if workers is not None and (places := engine.num_places(workers.gpus_each)) < workers.num:
        return Note(
            f"train.workers.num = {workers.num}, and all nodes together have places for {places} "
            "now: no more than there are train"
        )
    return engine.room()


def _is_judged(subject: Subject) -> str:
    """What the recipe's judge is asked of besides samples; empty for nothing."""
    config = subject.recipe.evaluate
    if config.mt_bench is not None and config.mt_bench.judge is None and subject.reaches("scores"):
        return "MT-Bench"
    files = [file for exam in config.exam for file in exam_files(exam)]
    judged = (item.exam for item in read_exams(files) if item.match == "judge")
    return next((f"the exam {exam!r}" for exam in judged), "")


def _writer(subject: Subject, config: TeacherConfig, who: str) -> str | None:
    if subject.is_run or not _has_url(config):
        return None
    served = find_model(config, config.endpoint, who=who)
    return f"{served.name} {served.place}"


def _later(config: TeacherConfig, who: str) -> str | None:
    """A server that is asked late: that nobody answers yet is no fault, that it lacks the model
    is."""
    if not _has_url(config):
        return None
    try:
        served = find_model(config, config.endpoint, who=who)
    except TeacherError as error:
        if isinstance(error.__cause__, NoAnswers) and not error.__cause__.why:
            return Note(f"nobody answers at {config.endpoint} now; it is {_LATER}")
        raise
    return f"{served.name} {served.place}"


def _scores(role: str, config: TeacherConfig, folder: str) -> str:
    return _tried(role, config, lambda s: _try(s, _ids(Path(folder))), "tells log-probabilities")


def _tried(
    role: str,
    config: TeacherConfig,
    trial: Callable[[ServedModel], Coroutine[None, None, None]],
    can: str,
) -> str:
    """What a server of a reward can do. Raises TeacherError where it cannot."""
    wanted = Wanted(
        urls=(config.endpoint, *config.endpoints),
        model=config.model,
        revision=config.revision,
        who=role,
    )
    try:
        served = find_served(wanted, replace(access_of(config), max_retries=1))
        asyncio.run(trial(served))
    except NotFound as error:
        raise TeacherError(str(error)) from error
    except (Refused, CannotScore) as error:
        raise TeacherError(f"{role} at {config.endpoint}: {error}") from error
    except NoAnswers as error:
        if error.why:
            raise TeacherError(error.sentence(role)) from error
        return Note(f"nobody answers at {config.endpoint} now; it is {_LATER}")
    return f"{served.name} {served.place}, {can}"


def _ids(folder: Path) -> list[int]:
    """A text in the tokens of the model behind a server."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return [1, 2, 3]
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(file)).encode(_TRIAL, add_special_tokens=False).ids
    return ids


async def _try(served: ServedModel, prompt: str | list[int]) -> None:
    async with served:
        await served.prompt_tokens(prompt)


async def _reward_one(served: ServedModel) -> None:
    async with served:
        await served.reward(
            [{"role": "user", "content": _TRIAL}, {"role": "assistant", "content": "Yes."}]
        )


def _has_url(config: TeacherConfig) -> bool:
    is_elsewhere = config.is_embedded or config.batch
    return not is_elsewhere and config.command is None and config.folder is None


def _is_done(subject: Subject, step: str) -> bool:
    return subject.run_path is not None and open_step(subject.run_path, step) is not None
