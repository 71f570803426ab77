"""A model in a Hugging Face folder, computed here by our own engine.

torch is loaded with the first thing that needs it: whoever names no folder never waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from feldspar.config import StudentConfig
from feldspar.endpoint.calls import ChatCall, Completion, Completions, PromptCall, Usage
from feldspar.endpoint.concurrency import Governor, Outcome
from feldspar.endpoint.endpoint import UNHURRIED, Access, Turn
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.replicas import ServersHealth
from feldspar.errors import TrainingError
from feldspar.models.model import Continuations, Heard, LogProb, unheard
from feldspar.models.served import model_key
from feldspar.progress import SILENT, Progress

if TYPE_CHECKING:
    from feldspar.models.engine_thread import EngineThread


class FolderIdentity(NamedTuple):
    """A model folder's name, and the start of its content's digest."""

    name: str
    revision: str


def folder_identity(folder: str) -> FolderIdentity:
    """What answers of a folder's model are known by, wherever the folder lies. Raises
    TrainingError where it is no model."""
    from feldspar.student.model import base_checkpoint

    return FolderIdentity(Path(folder).name, base_checkpoint(folder).digest[:16])


class LocalModel:
    """Computed by one thread, which requests join between its steps. It is loaded by the first
    call; `close` lets go of it."""

    def __init__(self, folder: str, access: Access, student: StudentConfig | None = None) -> None:
        self.folder = folder
        self.name, self.revision = folder_identity(folder)
        self.key = self.answers_key = model_key(self.name, self.revision, {})
        self._config = student or StudentConfig(base=folder, template="own")
        self._governor = Governor(access.concurrency or access.max_concurrency, 1)
        self._worker: EngineThread | None = None
        self._loading = threading.Lock()

    @property
    def place(self) -> str:
        return f"in {self.folder}"

    @property
    def concurrency(self) -> int:
        return self._governor.limit

    @property
    def health(self) -> ServersHealth:
        return ServersHealth()

    async def __aenter__(self) -> LocalModel:
        self._governor.drain(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def drain(self) -> None:
        self._governor.drain()

    def close(self) -> None:
        """Free what it takes."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        from feldspar.models.engine_thread import request_of

        ticket = await self._governor.acquire(turn.stage, turn.urgency)
        outcome: Outcome = "failed"
        try:
            await turn.admit()
            worker = await asyncio.to_thread(self._loaded, True)
            request = request_of(call, worker)
            rows = await worker.draw(request)
            outcome = "answered"
        finally:
            self._governor.release(ticket, outcome)
        choices = [Completion(row.text, "stop" if row.is_ended else "length") for row in rows]
        num_written = sum(len(row.ids) for row in rows)
        return Completions(tuple(choices), Usage(len(request.ids), num_written))

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        from feldspar.models.engine_thread import prompt_tokens_of

        worker = await asyncio.to_thread(self._loaded)
        student, context = worker.student, worker.context_tokens
        return await worker.run(lambda: prompt_tokens_of(student, prompt, context))

    async def score(
        self,
        rows: Sequence[Continuations],
        progress: Progress = SILENT,
        heard: Heard = unheard,
    ) -> list[list[LogProb]]:
        from feldspar.student.scoring.score import Tree, score_trees

        worker = await asyncio.to_thread(self._loaded)
        trees = [Tree(row.prompt, row.continuations) for row in rows]
        scored = await worker.run(lambda: score_trees(worker.student, trees, progress))
        found = [[LogProb(one.total, one.num_tokens) for one in of_tree] for of_tree in scored]
        for number, of_row in enumerate(found):
            for place, one in enumerate(of_row):
                heard(number, place, one)
        return found

    def _loaded(self, is_asked: bool = False) -> EngineThread:
        """A chat template is needed by who is asked, and not to score ids."""
        with self._loading:
            if self._worker is None:
                from feldspar.models.engine_thread import EngineThread
                from feldspar.student.model import load_to_answer
                from feldspar.student.plain_model import load_plain_student
                from feldspar.student.template.choose import has_chat_template

                is_own = self._config.template == "own"
                speaks = not is_own or has_chat_template(Path(self.folder))
                if is_asked and not speaks:
                    raise TrainingError(
                        f"{self.folder}: it has no chat template, so it cannot be asked; name a "
                        "chat model's folder"
                    )
                load = load_to_answer if speaks else load_plain_student
                self._worker = EngineThread(load(self.folder, self._config))
            return self._worker
