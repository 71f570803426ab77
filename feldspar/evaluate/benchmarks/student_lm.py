"""A student as lm_eval's `LM`: its tasks, our scorer and sampler.

Imported only where lm_eval is installed. Texts become ids as lm_eval's own Hugging Face model makes
them, so that numbers are comparable; what is computed from the ids is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from feldspar.config import StudentConfig
from feldspar.errors import RecipeError
from feldspar.evaluate.benchmarks.prefix import score_alike
from feldspar.progress import SILENT, Progress
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import load_to_answer
from feldspar.student.plain_model import PlainTemplate, eot_of, load_plain_student
from feldspar.student.scoring.score import Tree

DEFAULT_MAX_LENGTH = 2048
"""For models that do not say how much they can read: lm_eval's."""
MAX_NEW_TOKENS = 256
_UNSUPPORTED = ("top_k", "min_p", "num_beams", "repetition_penalty")


class StudentLM(TemplateLM):  # type: ignore[misc]
    """`chat_template`: the student's own, whose tokens it has; else none, and none are added."""

    way = ""
    """Nothing to add to the settings: this is how it is done."""

    def __init__(
        self, path: str, config: StudentConfig, *, chat_template: bool, progress: Progress = SILENT
    ) -> None:
        super().__init__()
        load = load_to_answer if chat_template else load_plain_student
        self.student = load(path, config)
        self.tokenizer = self.student.tokenizer
        self.max_length: int = resolve_max_length(
            self.student.model.config, self.tokenizer, default=DEFAULT_MAX_LENGTH
        )
        self._progress = progress

    @property
    def eot_token_id(self) -> int:
        return eot_of(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        prefix = self.tokenizer.decode(self.prefix_token_id)
        if add_special_tokens is None and has_bos_prefix(string, prefix):
            how["add_special_tokens"] = False
        ids: list[int] = self.tokenizer.encode(string, **how)
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids as lm_eval parts them; where an answer's only token has grown together with the
        context's last, which it gives up on, that token is the answer's."""
        prompt, scored = super()._encode_pair(context, continuation)
        if not scored and continuation:
            whole = self.tok_encode(context + continuation)
            prompt, scored = whole[:-1], whole[-1:]
        return prompt, scored

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        """Continuations of one prompt are scored together, whatever request they belong to."""
        trees: dict[tuple[int, ...], list[list[int]]] = {}
        places: list[tuple[tuple[int, ...], int]] = []
        for asked, prompt, continuation in requests:
            if not continuation or len(continuation) > self.max_length:
                raise RecipeError(_cannot_be_scored(asked, continuation, self.max_length))
            kept = tuple(prompt[-(self.max_length + 1 - len(continuation)) :])
            continuations = trees.setdefault(kept, [])
            places.append((kept, len(continuations)))
            continuations.append(continuation)
        scored = score_alike(
            self.student, [Tree(p, c) for p, c in trees.items()], progress=self._progress
        )
        by_prompt = dict(zip(trees, scored, strict=True))
        scores = [by_prompt[prompt][number] for prompt, number in places]
        return [(score.total, score.greedy) for score in scores]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of whole texts, in windows that each see as much as fits."""
        owners, windows = [], []
        for number, request in enumerate(requests):
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in rolling:
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (total, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += total
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Text up to the first of a task's stops; requests with the same settings go together."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        for numbers in groups.values():
            prompts = [requests[number].args[0] for number in numbers]
            said = self._generate(prompts, requests[numbers[0]].args[1])
            for number, text in zip(numbers, said, strict=True):
                texts[number] = text
        return texts

    def _generate(self, prompts: list[str], how: dict[str, Any]) -> list[str]:
        settings = normalize_gen_kwargs(how, MAX_NEW_TOKENS)
        unknown = [name for name in _UNSUPPORTED if settings.get(name) not in (None, 1, 1.0)]
        if unknown:
            raise RecipeError(f"a task samples with {unknown[0]}, which is not built; leave it out")
        eos = self.tokenizer.decode(self.eot_token_id)
        stops = handle_stop_sequences(settings.get("until"), eos=eos)
        room = self.max_length - settings["max_gen_toks"]
        if room <= 0:
            raise RecipeError(
                f"a task writes {settings['max_gen_toks']} tokens and the model reads "
                f"{self.max_length} in all; take the task out, or another base"
            )
        drawn = sample_answers(
            dataclasses.replace(self.student, template=PlainTemplate(self.tokenizer)),
            [self.tok_encode(prompt)[-room:] for prompt in prompts],
            keys=prompts,
            temperature=float(settings.get("temperature") or 0.0),
            top_p=float(settings.get("top_p") or 1.0),
            max_new_tokens=settings["max_gen_toks"],
            stop=[stops] * len(prompts),
            seed=1234,
            progress=self._progress,
        )
        return [postprocess_generated_text(only.text, stops, None) for (only,) in drawn]


def _cannot_be_scored(asked: Any, continuation: list[int], max_length: int) -> str:
    text = asked[1][:40] if asked else "a text"
    if not continuation:
        return f"a benchmark's answer {text!r} has no token of its own in this tokenizer"
    return f"a benchmark's answer {text!r} is longer than the {max_length} tokens a model reads"
