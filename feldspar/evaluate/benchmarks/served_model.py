"""A server's model as lm_eval's `LM`: completions where it has them, chat for what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import openai
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from feldspar.errors import RecipeError, TeacherError
from feldspar.evaluate.benchmarks.server import Served, echo
from feldspar.progress import SILENT, Progress

MAX_NEW_TOKENS = 256
_NUM_CALLS = 16
"""In flight: a server batches them."""
_MAX_STOPS = 4
"""OpenAI's limit; what a server did not stop at is cut here."""
T = TypeVar("T")
R = TypeVar("R")


class ServedLM(LM):  # type: ignore[misc]
    """Raises RecipeError for a task that this server cannot answer."""

    def __init__(self, served: Served, *, chat_template: bool, progress: Progress = SILENT) -> None:
        super().__init__()
        self._served, self._chat, self._progress = served, chat_template, progress

    @property
    def tokenizer_name(self) -> str:
        return self._served.model.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The server has the template: turns stay turns until they are sent."""
        raise RecipeError("a server applies its own chat template; leave `chat_template` out")

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        if not self._served.echoes:
            raise RecipeError(
                f"the server of {self._served.model} tells no log-probabilities of prompts (`echo` "
                "with `logprobs`), which this benchmark needs; vLLM's completions do, or name in "
                "evaluate.server_tasks what it can do"
            )
        return self._all(self._score, [request.args for request in requests])

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        raise RecipeError("perplexity of whole texts is not measured on servers; name a folder")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return self._all(self._write, [request.args for request in requests])

    def _score(self, asked: tuple[str, str]) -> tuple[float, bool]:
        """Sum over the tokens that begin in the answer, a space before it included."""
        context, continuation = asked
        kept = context.rstrip()
        tokens = echo(self._served.client, self._served.model, context + continuation)
        scored = [t for t in tokens if t.start >= len(kept) and t.log_prob is not None]
        if not scored:
            raise RecipeError(f"a benchmark's answer {continuation[:40]!r} has no token of its own")
        return sum(t.log_prob or 0.0 for t in scored), all(t.is_best for t in scored)

    def _write(self, asked: tuple[str, dict[str, Any]]) -> str:
        prompt, how = asked
        settings = normalize_gen_kwargs(how, MAX_NEW_TOKENS)
        stops = [stop for stop in settings.get("until") or [] if stop]
        client, model = self._served.client, self._served.model
        sampling: dict[str, Any] = {
            "max_tokens": settings["max_gen_toks"],
            "temperature": float(settings.get("temperature") or 0.0),
            "stop": stops[:_MAX_STOPS] or None,
        }
        if self._served.completes:
            text = client.completions.create(model=model, prompt=prompt, **sampling).choices[0].text
        else:
            turn: Any = {"role": "user", "content": prompt}
            reply = client.chat.completions.create(model=model, messages=[turn], **sampling)
            text = reply.choices[0].message.content or ""
        said: str = postprocess_generated_text(text, stops, None)
        return said

    def _all(self, ask: Callable[[T], R], asked: Sequence[T]) -> list[R]:
        with (
            self._progress.task("asking the server", len(asked), "calls") as task,
            ThreadPoolExecutor(_NUM_CALLS) as pool,
        ):

            def told(one: T) -> R:
                answer = ask(one)
                task.advance(1)
                return answer

            try:
                return list(pool.map(told, asked))
            except openai.OpenAIError as error:
                pool.shutdown(cancel_futures=True)
                reason = str(error).strip().split("\n")[0]
                raise TeacherError(
                    f"the server of {self._served.model} failed ({reason}); run again: every task "
                    "that was finished is kept"
                ) from error
