"""Answers drawn from a policy and rewarded, in shards, so that a killed round loses little.

    FOLDER/drawn/00000.jsonl.zst     texts of 64 prompts
    FOLDER/server.log                what the server said that drew them, where one did
    FOLDER/aligned_server.log        the same of a command that computed the aligned model
    FOLDER/aligned/00000.jsonl.zst   their log-probabilities; FOLDER/base/... alike
    FOLDER/reward_model_server.log   and of one that computed a reward model
    FOLDER/reward-model/00000.jsonl.zst   in place of these two, the rewards of a reward model
    FOLDER/candidates.jsonl.zst      all with their rewards, last

One model is in memory at a time: the policy, then the aligned model, then its base.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.prefer.methods import PreferenceMethod, method_of
from feldspar.prefer.reward import (
    ROLES,
    RewardPair,
    Role,
    close_scorer,
    free_memory,
    open_scorer,
    score_answers,
)
from feldspar.prefer.reward_model import open_reward_model
from feldspar.prefer.reward_prompts import framed
from feldspar.prefer.served_policy import ServedPolicy, launched_policy
from feldspar.progress import Progress
from feldspar.records import (
    Candidate,
    Checkpoint,
    Prompt,
    RateCheckpoint,
    ScoreCheckpoint,
    ScoreItems,
)
from feldspar.runs import read_rows, write_rows
from feldspar.student.inference.sample import Sampled, sample_answers
from feldspar.student.model import load_to_answer
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow

PROMPTS_PER_SHARD = 64
BY_MODEL = "reward-model"

Reward = Callable[[AnswerLogProb, AnswerLogProb], float]
"""Of what the aligned model and its base find of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A candidate that has no reward yet."""

    prompt: str
    draw: int
    text: str
    ended: bool
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReward:
    """What a reward model says of a draw."""

    value: float


AnswersRead = Callable[[Sequence[AnswerRow]], Sequence[AnswerLogProb] | Sequence[ModelReward]]
"""What a model of the reward finds of answers, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundContext:
    """What stays the same over all rounds."""

    config: PreferConfig
    student: StudentConfig
    train: TrainConfig
    pair: RewardPair | None
    """None where a reward model rewards."""
    reward: Reward
    score: ScoreCheckpoint
    seed: int
    progress: Progress
    rate: RateCheckpoint | None = None
    """MT-Bench, where a judge is given."""
    kept: ScoreItems | None = None
    """What is to be kept, where exams ask for that."""
    num_processes: int = 1
    """That share each step of fine-tuning."""

    @property
    def method(self) -> PreferenceMethod:
        """From rewarded candidates to rows."""
        return method_of(self.config)


def draw_candidates(
    policy: Checkpoint,
    prompts: Sequence[Prompt],
    num_answers: int,
    folder: Path,
    context: RoundContext,
) -> Path:
    """Draw `num_answers` from the policy for each prompt, reward them, and give their file.

    What an earlier try finished in `folder` is used again. Draws are a function of (seed, folder's
    name, prompt, draw), so a resumed round is the same round.
    """
    path = folder / "candidates.jsonl.zst"
    if not path.exists():
        shards = [
            prompts[start : start + PROMPTS_PER_SHARD]
            for start in range(0, len(prompts), PROMPTS_PER_SHARD)
        ]
        _draw(policy, shards, num_answers, folder, context)
        for reader in _readers(context.config):
            _score(reader, shards, folder, context)
        write_rows(path, _rewarded(shards, folder, context))
    return path


def _draw(
    policy: Checkpoint,
    shards: Sequence[Sequence[Prompt]],
    num_answers: int,
    folder: Path,
    context: RoundContext,
) -> None:
    missing = _missing(len(shards), folder / "drawn")
    if not missing:
        return
    total = len(shards)
    name = f"{folder.name}: answers"
    with (
        _answering(policy, num_answers, folder, context) as answer,
        context.progress.task(name, total, "shards", done=total - len(missing)) as task,
    ):
        for number in missing:
            shard, path = shards[number], _shard(folder / "drawn", number)
            draws = (
                Draw(prompt=prompt.id, draw=draw, **sampled._asdict())
                for prompt, drawn in zip(shard, answer(shard, path), strict=True)
                for draw, sampled in enumerate(drawn)
            )
            write_rows(path, draws)
            task.advance()
    del answer
    free_memory()


Answer = Callable[[Sequence[Prompt], Path], list[list[Sampled]]]
"""Draws for the prompts of a shard that will be written to a path."""


@contextmanager
def _answering(
    policy: Checkpoint, num_answers: int, folder: Path, context: RoundContext
) -> Iterator[Answer]:
    """The policy, loaded in this process or behind a server that is started for it."""
    config = context.config

    def keys(shard: Sequence[Prompt]) -> list[str]:
        return [f"{folder.name}/{prompt.id}" for prompt in shard]

    if config.policy_server is None:
        model = load_to_answer(policy.path, context.student)
        yield lambda shard, _: sample_answers(
            model,
            [prompt.messages for prompt in shard],
            keys=keys(shard),
            num_answers=num_answers,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=context.seed,
        )
        return
    log_path = folder / "server.log"
    with launched_policy(config.policy_server, policy.path, log_path) as launched:
        served = ServedPolicy(launched, policy.path, num_answers, config, context.student)

        def draw(shard: Sequence[Prompt], path: Path) -> list[list[Sampled]]:
            messages = [prompt.messages for prompt in shard]
            return served.draw(messages, keys(shard), context.seed, _journal_path(path))

        yield draw
    for journal in folder.glob("drawn/*.answers.jsonl"):
        journal.unlink()


def _journal_path(shard: Path) -> Path:
    return shard.with_name(f"{shard.name.partition('.')[0]}.answers.jsonl")


def _score(
    reader: str,
    shards: Sequence[Sequence[Prompt]],
    folder: Path,
    context: RoundContext,
) -> None:
    """What one of `_readers` finds of every draw."""
    missing = _missing(len(shards), folder / reader)
    if not missing:
        return
    total = len(shards)
    name = f"{folder.name}: {reader.removesuffix('-model')} model's reading"
    with (
        _reading(reader, folder, context) as read,
        context.progress.task(name, total, "shards", done=total - len(missing)) as task,
    ):
        for number in missing:
            asked = {
                prompt.id: framed(prompt.messages, prompt.source, context.config.reward_prompts)
                for prompt in shards[number]
            }
            rows = [
                AnswerRow(messages=asked[draw.prompt].messages, answer=draw.text, ended=draw.ended)
                for draw in read_rows(_shard(folder / "drawn", number), Draw)
            ]
            write_rows(_shard(folder / reader, number), read(rows))
            task.advance()
    # It holds the model.
    del read
    free_memory()


def _readers(config: PreferConfig) -> tuple[str, ...]:
    """The models that read all draws, one after another."""
    return (BY_MODEL,) if config.reward == "reward-model" else ROLES


@contextmanager
def _reading(reader: str, folder: Path, context: RoundContext) -> Iterator[AnswersRead]:
    """The model, loaded or asked; gone from memory after the block."""
    if reader == BY_MODEL:
        model = open_reward_model(context.config, context.student, folder)
        try:
            yield lambda rows: [ModelReward(value=value) for value in model.read(rows)]
        finally:
            model.close()
        return
    assert context.pair is not None
    role: Role = "aligned" if reader == "aligned" else "base"
    scorer = open_scorer(role, context.pair, context.student, folder)
    try:
        yield lambda rows: score_answers(scorer, rows)
    finally:
        close_scorer(scorer)


def _rewarded(
    shards: Sequence[Sequence[Prompt]], folder: Path, context: RoundContext
) -> Iterator[Candidate]:
    prompts = context.config.reward_prompts
    for number, shard in enumerate(shards):
        domains = {p.id: framed(p.messages, p.source, prompts).domain for p in shard}
        draws = read_rows(_shard(folder / "drawn", number), Draw)
        for draw, reward in zip(draws, _rewards(number, folder, context), strict=True):
            yield Candidate(
                prompt=draw.prompt,
                draw=draw.draw,
                text=draw.text,
                ended=draw.ended,
                num_tokens=draw.num_tokens,
                reward=reward,
                domain=domains[draw.prompt],
            )


def _rewards(number: int, folder: Path, context: RoundContext) -> Iterator[float]:
    """Of a shard's draws, in order."""
    if context.config.reward == "reward-model":
        for reward in read_rows(_shard(folder / BY_MODEL, number), ModelReward):
            yield reward.value
        return
    found = (read_rows(_shard(folder / role, number), AnswerLogProb) for role in ROLES)
    for by_aligned, by_base in zip(*found, strict=True):
        yield context.reward(by_aligned, by_base)


def _missing(num_shards: int, folder: Path) -> list[int]:
    folder.mkdir(parents=True, exist_ok=True)
    return [number for number in range(num_shards) if not _shard(folder, number).exists()]


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.jsonl.zst"
