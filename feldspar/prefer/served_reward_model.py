"""A scalar reward model by `[prefer.reward_model_server]`: an endpoint, or a command that the run
starts, which classifies conversations as vLLM does (endpoint/classify.py).

The server holds the tokenizer and the chat template; nothing of the model lies here. Rewards are
written every 64 prompts, as those of a local model are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.errors import TrainingError
from feldspar.models.launched import LaunchedModel
from feldspar.models.local import LocalModel
from feldspar.models.model import CannotScore
from feldspar.models.opening import unserved_model
from feldspar.models.served import ServedModel
from feldspar.prefer.served_scorer import Logged, find_for, gave_up, no_answers
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.student.scoring.log_probs import AnswerRow

log = logging.getLogger(__name__)

_TRIAL = AnswerRow((Message(role="user", content="Is seven a number?"),), "Yes.")
_SUSPECT_ROWS = 16
"""So many rewards that all lie from 0 to 1 are hardly a model's own outputs."""


class ServedRewardModel:
    """Connect with `connect_reward_model`, and `close` at last."""

    def __init__(self, served: ServedModel | LaunchedModel) -> None:
        self._served = served

    @property
    def name(self) -> str:
        return f"{self._served.name} {self._served.place}"

    def read(self, rows: Sequence[AnswerRow], progress: Progress = SILENT) -> list[float]:
        """The reward of each answer, in order, several at a time.

        Raises TrainingError where the server stays away, will not answer, or returns no reward.
        """
        try:
            rewards = asyncio.run(self._read(rows, progress))
        except NoAnswers as error:
            raise no_answers(error) from error
        except Refused as error:
            if error.gave_up:
                raise gave_up(self._served.place, error.reason) from error
            raise TrainingError(
                f"{self.name} refuses a prompt with its answer ({error.reason}); if they are too "
                "long, lower prefer.max_new_tokens, or raise the server's limit"
            ) from error
        except CannotScore as error:
            raise TrainingError(
                f"{self.name} {error}; serve a sequence classifier with one output with `vllm "
                "serve`, or name its folder as prefer.reward_model and it is computed locally"
            ) from error
        if len(rewards) >= _SUSPECT_ROWS and all(0 <= reward <= 1 for reward in rewards):
            log.warning(
                "%s: all of %d rewards lie from 0 to 1: if the server puts outputs through a "
                "sigmoid, high rewards become equal; turn its activation off",
                self.name, len(rewards),
            )  # fmt: skip
        return rewards

    def close(self) -> None:
        """End the servers that were started for it."""
        if isinstance(self._served, LaunchedModel):
            self._served.close()

    async def _read(self, rows: Sequence[AnswerRow], progress: Progress) -> list[float]:
        async with self._served:
            with progress.task("rewards", len(rows), "answers") as task:

                async def reward_one(row: AnswerRow) -> float:
                    reward = await self._served.reward(_conversation(row))
                    task.advance()
                    return reward

                running = [asyncio.ensure_future(reward_one(row)) for row in rows]
                try:
                    return list(await asyncio.gather(*running))
                finally:
                    for one in running:
                        one.cancel()
                    await asyncio.gather(*running, return_exceptions=True)


def connect_reward_model(config: TeacherConfig, logged: Logged) -> ServedRewardModel:
    """Find or start the model, and have one answer rewarded. Raises TrainingError as `read`, and
    where there is no such model."""
    served = unserved_model(config, logged.folder, logged.role) or find_for(config)
    assert not isinstance(served, LocalModel), "the recipe was checked"
    model = ServedRewardModel(served)
    try:
        model.read([_TRIAL])
    except BaseException:
        model.close()
        raise
    return model


def _conversation(row: AnswerRow) -> list[Mapping[str, str]]:
    turns = [{"role": m.role, "content": m.content} for m in row.messages]
    return [*turns, {"role": "assistant", "content": row.answer}]
