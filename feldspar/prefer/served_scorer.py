"""A model of the reward pair by `[prefer.aligned_server]` or `[prefer.base_server]`.

It is an endpoint, a command that the run starts, or a folder; it takes token ids and gives their
log-probabilities. Text is put into turns and tokens by the run, as for a local model, and sent as
ids: the server's own template and tokenizer are never used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.errors import TrainingError
from feldspar.models.launched import LaunchedModel
from feldspar.models.local import LocalModel
from feldspar.models.model import CannotScore, Continuations, LogProb
from feldspar.models.opening import access_of, unserved_model
from feldspar.models.served import NotFound, ServedModel, Wanted, find_served
from feldspar.progress import SILENT, Progress
from feldspar.student.scoring.log_probs import AnswerLogProb
from feldspar.student.scoring.score import Tree
from feldspar.student.template.render import Template

_TRIAL = "Seven is a number between 6 and 8."
_KEPT = "then run again: what there is so far is kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedScorer:
    """One model of the pair; its tokenizer and template are local. `close` ends what was started
    for it."""

    served: ServedModel | LaunchedModel | LocalModel
    tokenizer: Any
    template: Template
    longest: float
    """Tokens of a prompt and its answer; infinite where neither files nor server say."""

    @property
    def model(self) -> str:
        """What the server calls it."""
        return self.served.name

    @property
    def name(self) -> str:
        return f"{self.model} {self.served.place}"

    def read(self, trees: Sequence[Tree], progress: Progress = SILENT) -> list[AnswerLogProb]:
        """Score every continuation, in order, several at a time; empty ones score 0.

        Raises TrainingError where the server stays away, or will not answer.
        """
        rows = [Continuations(tree.prompt, tree.continuations) for tree in trees]
        try:
            scored = asyncio.run(self._read(rows, progress))
        except NoAnswers as error:
            raise no_answers(error) from error
        except Refused as error:
            if error.gave_up:
                raise gave_up(self.served.place, error.reason) from error
            longest = max(len(r.prompt) + len(ids) for r in rows for ids in r.continuations)
            raise TrainingError(
                f"{self.name} refuses a prompt of up to {longest} tokens ({error.reason}); lower "
                "prefer.max_new_tokens, or raise the server's limit"
            ) from error
        except CannotScore as error:
            raise TrainingError(f"{self.name} {error}; see its log, {_KEPT}") from error
        return [AnswerLogProb(*one) for of_row in scored for one in of_row]

    def close(self) -> None:
        if not isinstance(self.served, ServedModel):
            self.served.close()

    async def _read(self, rows: Sequence[Continuations], progress: Progress) -> list[list[LogProb]]:
        async with self.served:
            return await self.served.score(rows, progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the servers of a role say is written to `folder/role.log`."""

    folder: Path
    role: str


def connect(
    config: TeacherConfig, logged: Logged, tokenizer: Any, template: Template, longest: float
) -> ServedScorer:
    """Find or start the model, and find out how it returns log-probabilities.

    Raises TrainingError where nobody answers, where there is no such model, where it tells none of
    a prompt given as ids, and where it reads these ids as another text.
    """
    ids = tokenizer(_TRIAL, add_special_tokens=False)["input_ids"]
    served = unserved_model(config, logged.folder, logged.role) or find_for(config)
    scorer = ServedScorer(
        served=served, tokenizer=tokenizer, template=template, longest=_longest(served, longest)
    )
    try:
        _check_text(scorer, _try_out(scorer, ids), tokenizer.decode(ids[1:]))
    except BaseException:
        scorer.close()
        raise
    return scorer


def find_for(config: TeacherConfig) -> ServedModel:
    """The model of an endpoint. Raises TrainingError where it is not there."""
    wanted = Wanted(
        urls=(config.endpoint, *config.endpoints), model=config.model, revision=config.revision
    )
    try:
        return find_served(wanted, access_of(config))
    except NotFound as error:
        raise TrainingError(str(error)) from error
    except NoAnswers as error:
        raise no_answers(error) from error


def _longest(served: ServedModel | LaunchedModel | LocalModel, longest: float) -> float:
    most = served.card.max_model_len if isinstance(served, ServedModel) else None
    return longest if most is None else min(longest, most)


def _try_out(scorer: ServedScorer, ids: list[int]) -> str:
    try:
        return asyncio.run(_try(scorer, ids))
    except NoAnswers as error:
        raise no_answers(error) from error
    except Refused as error:
        raise gave_up(scorer.served.place, error.reason) from error
    except CannotScore as error:
        raise TrainingError(
            f"the server {scorer.served.place} {error}, or leave the server out and the model is "
            "computed locally"
        ) from error


async def _try(scorer: ServedScorer, ids: list[int]) -> str:
    """What the server reads these ids as, from the second on; empty where it does not say."""
    async with scorer.served:
        tokens = await scorer.served.prompt_tokens(ids)
    return "".join(token.text or "" for token in tokens)


def no_answers(error: NoAnswers) -> TrainingError:
    """What is raised where no call will be answered."""
    if error.why in ("", "gone"):
        return gave_up(error.place, error.reason)
    return TrainingError(error.sentence("server"))


def gave_up(place: str, reason: str) -> TrainingError:
    """What is raised where a server fails each time."""
    return TrainingError(
        f"the server {place} does not answer ({reason}); start it, or mend its `endpoint` (a URL "
        f"that ends in /v1), {_KEPT}"
    )


def _check_text(scorer: ServedScorer, read: str, expected: str) -> None:
    if read and _letters(read) != _letters(expected):
        raise TrainingError(
            f"the server {scorer.served.place} reads the tokens of {expected!r} as {read!r}: its "
            "tokenizer is another than the one that the recipe names; name the folder of the "
            "tokenizer that the served model has"
        )


def _letters(text: str) -> str:
    """What is left when the ways of writing spaces are put aside."""
    return "".join(c for c in text if c.isascii() and c.isalnum())
