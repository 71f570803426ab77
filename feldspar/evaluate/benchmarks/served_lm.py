"""Any model of `models/` as lm_eval's `LM`: completions where it has them, else chat."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from feldspar.endpoint.calls import ChatCall, PromptCall
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.errors import RecipeError, TeacherError
from feldspar.models.model import CannotScore, Model
from feldspar.progress import SILENT, Progress, Task

MAX_NEW_TOKENS = 256
_MAX_STOPS = 4
"""OpenAI's limit; what a server did not stop at is cut afterwards."""
_TRIAL = PromptCall(prompt="One two three", max_tokens=1)
COMPLETIONS, CHAT = "; served, completions", ", served, chat alone"
"""A chat alone puts the server's template around every prompt; completions change nothing."""
T = TypeVar("T")
R = TypeVar("R")


class ServedLM(LM):  # type: ignore[misc]
    """Raises RecipeError for a task that this model cannot answer."""

    def __init__(self, model: Model, progress: Progress = SILENT) -> None:
        super().__init__()
        self._model, self._progress = model, progress
        self.way = COMPLETIONS
        self._can_score = self._is_way_known = False

    @property
    def tokenizer_name(self) -> str:
        return self._model.name.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The server has the template: turns stay turns until they are sent."""
        raise RecipeError("a server applies its own chat template; leave `chat_template` out")

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        return self._run(self._score_all([request.args for request in requests]))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        raise RecipeError("perplexity of whole texts is not measured on servers; name a folder")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return self._run(self._write_all([request.args for request in requests]))

    async def _score_all(self, asked: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        try:
            # One alone: it finds out whether and how this model returns them.
            if not self._can_score:
                async with self._model:
                    await self._model.prompt_tokens("".join(asked[0]))
                self._can_score = True
            async with self._model:
                return await self._all(self._score, asked)
        except (CannotScore, NoAnswers) as error:
            if isinstance(error, NoAnswers) and error.why != "address":
                raise
            raise RecipeError(
                f"the server of {self._model.name} returns no log-probabilities of prompts "
                f"({error}), which this benchmark needs; vLLM and `feldspar serve` do, or name in "
                "evaluate.server_tasks what it can do"
            ) from error

    async def _write_all(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        if not self._is_way_known:
            self.way = await self._find_way()
            self._is_way_known = True
        async with self._model:
            return await self._all(self._write, asked)

    async def _find_way(self) -> str:
        """Completions where the model has them; else chat."""
        try:
            async with self._model:
                await self._model.complete(_TRIAL)
        except Refused:
            return CHAT
        except NoAnswers as error:
            if error.why != "address":
                raise
            return CHAT
        return COMPLETIONS

    async def _score(self, asked: tuple[str, str]) -> tuple[float, bool]:
        """Sum over the tokens that begin in the answer, a space before it included."""
        context, continuation = asked
        text = context + continuation
        tokens = await self._model.prompt_tokens(text)
        kept = len(context.rstrip())
        scored = [
            token
            for token, start in zip(tokens, token_starts(text, tokens), strict=True)
            if kept <= start < len(text)
        ]
        if not scored:
            raise RecipeError(f"a benchmark's answer {continuation[:40]!r} has no token of its own")
        total = math.fsum(token.log_prob for token in scored)
        return total, all(token.is_best for token in scored)

    async def _write(self, asked: tuple[str, dict[str, Any]]) -> str:
        prompt, how = asked
        settings = normalize_gen_kwargs(how, MAX_NEW_TOKENS)
        stops = [stop for stop in settings.get("until") or [] if stop]
        max_tokens: int = settings["max_gen_toks"]
        temperature = float(settings.get("temperature") or 0.0)
        stop = tuple(stops[:_MAX_STOPS])
        call: PromptCall | ChatCall = PromptCall(
            prompt=prompt, max_tokens=max_tokens, temperature=temperature, stop=stop
        )
        if self.way == CHAT:
            call = ChatCall(
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                temperature=temperature,
                stop=stop,
                may_be_empty=True,
            )
        answer = await self._model.complete(call)
        said: str = postprocess_generated_text(answer.choices[0].text, stops, None)
        return said

    async def _all(self, ask: Callable[[T], Awaitable[R]], asked: Sequence[T]) -> list[R]:
        async def count(one: T, task: Task) -> R:
            answer = await ask(one)
            task.advance(1)
            return answer

        with self._progress.task("asking the server", len(asked), "calls") as task:
            running = [asyncio.ensure_future(count(one, task)) for one in asked]
            try:
                return await asyncio.gather(*running)
            finally:
                for one in running:
                    one.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            return asyncio.run(work)
        except NoAnswers as error:
            raise TeacherError(error.sentence("server")) from error
        except Refused as error:
            raise TeacherError(
                f"the server of {self._model.name} failed ({error.reason}); run again: every task "
                "that was finished is kept"
            ) from error


def token_starts(text: str, tokens: Sequence[PromptToken]) -> list[int]:
    """Where each token of a text begins, in characters: as its server says, else found from its
    end by what the server writes for each. Raises CannotScore where neither is known.

    Parts of one character all begin where it does.
    """
    given = [token.start for token in tokens if token.start is not None]
    if len(given) == len(tokens):
        return given
    starts = []
    end = len(text)
    for token in reversed(tokens):
        if token.text is None or not text[:end].endswith(token.text):
            raise CannotScore("does not say where the tokens of a prompt begin")
        end -= len(token.text)
        starts.append(end)
    return starts[::-1]
