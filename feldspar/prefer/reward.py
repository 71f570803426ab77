"""The log-ratio reward: how much likelier the aligned model finds an answer than its base does."""

import gc
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from feldspar.config import PreferConfig, StudentConfig, TeacherConfig
from feldspar.errors import RecipeError, TrainingError
from feldspar.keys import content_key
from feldspar.models.opening import identity_of
from feldspar.prefer.reward_prompts import check_turns
from feldspar.prefer.served_scorer import Logged, ServedScorer, connect
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint
from feldspar.student.lm_head import check_head
from feldspar.student.model import (
    DTYPES,
    Student,
    base_checkpoint,
    find_device,
    words_checkpoint,
)
from feldspar.student.model_files import explain_loading
from feldspar.student.model_sizes import num_weights
from feldspar.student.precision import find_precision, size_of_base
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow, answer_trees
from feldspar.student.scoring.score import Tree, score_trees
from feldspar.student.template.layout import OwnLayout
from feldspar.student.template.render import Template

log = logging.getLogger(__name__)


Role = Literal["aligned", "base"]
ROLES: tuple[Role, ...] = ("aligned", "base")


class SpreadModel(NamedTuple):
    """One model of the pair on several devices, a copy on each, which share the reading."""

    copies: tuple[Student, ...]

    @property
    def tokenizer(self) -> Any:
        return self.copies[0].tokenizer

    @property
    def template(self) -> Template:
        return self.copies[0].template

    def read(self, trees: Sequence[Tree], progress: Progress = SILENT) -> list[AnswerLogProb]:
        """Score every continuation, in order. Which copy reads a tree is a matter of its place."""
        num = len(self.copies)
        with (
            progress.task("log-probabilities", len(trees), "prompts") as task,
            ThreadPoolExecutor(num) as pool,
        ):
            running = [
                pool.submit(score_trees, copy, trees[place::num])
                for place, copy in enumerate(self.copies)
            ]
            parts = [iter(one.result()) for one in running]
            task.advance(len(trees))
        scored = [next(parts[place % num]) for place in range(len(trees))]
        return [AnswerLogProb(s.total, s.num_tokens) for of_tree in scored for s in of_tree]


Scorer = Student | SpreadModel | ServedScorer
"""One model of the pair: computed here, on one device or on several, or by a server."""


class RewardPair(NamedTuple):
    """The two models, by content, and the servers that compute them, where these do."""

    aligned: Checkpoint
    base: Checkpoint
    aligned_server: TeacherConfig | None = None
    base_server: TeacherConfig | None = None


def find_pair(config: PreferConfig) -> RewardPair:
    """Find both models. Raises where one is missing, where both are one and the same, and where the
    aligned model's chat template cannot write the recipe's reward prompts.

    A server is asked only where the recipe does not name its model.
    """
    found = []
    servers = (config.aligned_server, config.base_server)
    for role, server in zip(ROLES, servers, strict=True):
        path = getattr(config, role)
        assert path is not None, config.reward
        try:
            found.append(base_checkpoint(path) if server is None else _served(path, server, role))
        except TrainingError as error:
            raise TrainingError(
                f"prefer.{role}: {error}; the reward needs both models: without its reference it "
                "collapses to the shortest answers"
            ) from error
    pair = RewardPair(found[0], found[1], *servers)
    places = {server and (server.endpoint, server.command, server.folder) for server in servers}
    if pair.aligned.digest == pair.base.digest and len(places) == 1:
        raise RecipeError(
            f"prefer.aligned and prefer.base are the same model ({config.aligned}), so every "
            "reward would be 0; name the base that the aligned model was made from"
        )
    if (pair.aligned_server is None) != (pair.base_server is None):
        log.warning(
            "one model of the reward pair is computed by a server and one here: engines differ in "
            "their rounding, and that difference goes into the reward; have both computed alike"
        )
    if config.reward_prompts is not None:
        check_turns(pair.aligned.path, config.reward_prompts)
    return pair


def _served(path: str, server: TeacherConfig, role: Role) -> Checkpoint:
    """A model by its tokenizer's files, and by its name or content."""
    words = words_checkpoint(path)
    identity = identity_of(server, f"prefer.{role}_server")
    return replace(words, digest=content_key(words.digest, identity))


def open_scorer(role: Role, pair: RewardPair, student: StudentConfig, log_folder: Path) -> Scorer:
    """One model of the pair, ready to score. Raises as `load_scorer` and `connect` do.

    Give it to `close_scorer` at last; servers that are started for it log to `log_folder`.
    """
    model: Checkpoint = getattr(pair, role)
    server: TeacherConfig | None = getattr(pair, f"{role}_server")
    if server is None:
        copies = load_copies(model, pair, student, _devices(model, student))
        return copies[0] if len(copies) == 1 else SpreadModel(copies)
    tokenizer, template = _words(model, pair)
    logged = Logged(folder=log_folder, role=f"{role}_server")
    return connect(server, logged, tokenizer, template, _longest_of(Path(model.path)))


def close_scorer(scorer: Scorer) -> None:
    """End the servers that were started for it."""
    if isinstance(scorer, ServedScorer):
        scorer.close()


def load_scorer(model: Checkpoint, pair: RewardPair, student: StudentConfig) -> Student:
    """Load one model of the pair on one device, speaking through the aligned model's chat template.

    Each reads the text with its own tokenizer, which is one where the two are equal. Weights are
    taken as they are: a token added for padding would change what the softmax is over.
    """
    return load_copies(model, pair, student, [find_device(student.device)])[0]


def load_copies(
    model: Checkpoint, pair: RewardPair, student: StudentConfig, devices: Sequence[torch.device]
) -> tuple[Student, ...]:
    """The same on each of the devices. Raises TrainingError where a device has too little room."""
    tokenizer, template = _words(model, pair)
    copies = []
    for device in devices:
        dtype = _dtype(model, student, device)
        _check_memory(model, device, dtype)
        options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        weights, info = _load(
            AutoModelForCausalLM, model, dtype=dtype, use_safetensors=True, **options
        )
        explain_loading(model.path, info)
        weights.to(device).eval()
        check_head(weights)
        copies.append(
            Student(
                model=weights,
                tokenizer=tokenizer,
                template=template,
                device=device,
                dtype=dtype,
                compile=student.compile,
            )
        )
    return tuple(copies)


def _devices(model: Checkpoint, student: StudentConfig) -> list[torch.device]:
    """Every GPU that has room for the model, where GPUs compute; else the one device there is."""
    device = find_device(student.device)
    if device.type != "cuda":
        return [device]
    every = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    needed = num_weights(Path(model.path)) * _dtype(model, student, device).itemsize
    return [one for one in every if needed <= (free_bytes(one) or 0)] or [device]


class _Words(NamedTuple):
    """How one model of the pair is spoken to; the tokenizer is transformers'."""

    tokenizer: Any
    template: Template


def _words(model: Checkpoint, pair: RewardPair) -> _Words:
    aligned_tokenizer = _load(AutoTokenizer, pair.aligned)
    if not aligned_tokenizer.chat_template:
        raise TrainingError(
            f"prefer.aligned: {pair.aligned.path} has no chat template, so there is no telling how "
            "it is spoken to; add chat_template.jinja beside its tokenizer.json"
        )
    tokenizer = aligned_tokenizer if model == pair.aligned else _load(AutoTokenizer, pair.base)
    return _Words(tokenizer, _template(OwnLayout(aligned_tokenizer), tokenizer))


def score_answers(
    scorer: Scorer, rows: Sequence[AnswerRow], progress: Progress = SILENT
) -> list[AnswerLogProb]:
    """What one model of the pair finds of answers. Nothing is cut: raises TrainingError for a
    prompt and answer longer than the model reads, and for a text it has no tokens for."""
    trees = answer_trees(scorer, rows)
    _check_readable(scorer, rows, trees)
    if not isinstance(scorer, Student):
        return scorer.read(trees, progress)
    scored = score_trees(scorer, trees, progress)
    return [AnswerLogProb(s.total, s.num_tokens) for of_tree in scored for s in of_tree]


def free_memory() -> None:
    """Give a model's memory back before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def log_ratio(
    aligned: AnswerLogProb, base: AnswerLogProb, normalise: Literal["sum", "mean"]
) -> float:
    """Sum over answer tokens of log p_aligned - log p_base, in nats; `mean` is per token.

    Beta and Z(x) cancel between answers to one prompt.
    """
    if normalise == "sum":
        return aligned.total - base.total
    return aligned.total / max(1, aligned.num_tokens) - base.total / max(1, base.num_tokens)


def longest_read(scorer: Scorer) -> float:
    """Tokens of a prompt and its answer together; infinite where the model does not say."""
    if isinstance(scorer, ServedScorer):
        return scorer.longest
    return _longest(_one(scorer).model.config)


def name_of(scorer: Scorer) -> str:
    if isinstance(scorer, ServedScorer):
        return scorer.name
    return str(_one(scorer).model.name_or_path)


def _one(scorer: Student | SpreadModel) -> Student:
    return scorer.copies[0] if isinstance(scorer, SpreadModel) else scorer


def _longest(config: Any) -> float:
    text = config.get_text_config()
    return float(getattr(text, "max_position_embeddings", None) or math.inf)


def _longest_of(folder: Path) -> float:
    """The same by a folder's config.json, which a tokenizer's folder may lack."""
    try:
        return _longest(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except (OSError, ValueError, KeyError):
        return math.inf


def _check_readable(scorer: Scorer, rows: Sequence[AnswerRow], trees: Sequence[Tree]) -> None:
    name = name_of(scorer)
    longest = longest_read(scorer)
    unknown = {scorer.tokenizer.unk_token_id} - {None, scorer.template.stop_id}
    every = ((len(t.prompt), ids) for t in trees for ids in t.continuations)
    for row, (num_prompt, ids) in zip(rows, every, strict=True):
        if unknown & set(ids) or (row.answer.strip() and len(ids) <= row.ended):
            raise TrainingError(
                f"{name}: its tokenizer cannot write the answer {row.answer[:40]!r}; name a reward "
                "pair that reads this text"
            )
        if num_prompt + len(ids) > longest:
            raise TrainingError(
                f"{name} reads {longest:.0f} tokens, and a prompt with its answer has "
                f"{num_prompt + len(ids)}; lower prefer.max_new_tokens, or leave such prompts out"
            )


def _load(kind: Any, model: Checkpoint, **options: Any) -> Any:
    transformers_logging.disable_progress_bar()  # it draws its own, beside ours
    try:
        return kind.from_pretrained(model.path, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TrainingError(f"{model.path}: cannot be loaded for the reward: {reason}") from error
    finally:
        transformers_logging.enable_progress_bar()


def _check_memory(model: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    """Raise TrainingError where the weights alone will not fit; what would is said."""
    needed = num_weights(Path(model.path)) * dtype.itemsize
    free = free_bytes(device)
    if free is None or needed <= free:
        return
    half = needed * torch.bfloat16.itemsize // dtype.itemsize
    cure = (
        'student.dtype = "bfloat16" would do'
        if half <= free
        else f"a machine with {half / 1e9:.1f} GB free would do in bfloat16, or a smaller pair"
    )
    raise TrainingError(
        f"{model.path}: its weights need {needed / 1e9:.1f} GB on {device.type}, and "
        f"{free / 1e9:.1f} GB are free, though one model of the pair is loaded at a time; {cure}"
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that is available on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def _dtype(model: Checkpoint, student: StudentConfig, device: torch.device) -> torch.dtype:
    return DTYPES[find_precision(student, device.type, size_of_base(model.path)).dtype]


def _template(layout: OwnLayout, tokenizer: Any) -> Template:
    """The aligned model's turns and stop in `tokenizer`'s tokens, or else the tokenizer's stop."""
    stop_id = tokenizer.get_vocab().get(layout.stop_text, tokenizer.eos_token_id)
    if stop_id is None:
        raise TrainingError(
            f"prefer.base: its tokenizer has neither {layout.stop_text!r} nor an end token, so it "
            "cannot score where an answer ends"
        )
    if tokenizer.convert_ids_to_tokens(stop_id) != layout.stop_text:
        log.warning(
            "the reward pair's tokenizers differ: the base ends answers with %r, not %r",
            tokenizer.convert_ids_to_tokens(stop_id), layout.stop_text,
        )  # fmt: skip
    ids = tokenizer("")["input_ids"]
    uses_bos = bool(ids) and ids[0] == tokenizer.bos_token_id
    return Template(
        tokenizer,
        layout=layout,
        stop_id=stop_id,
        pad_id=stop_id,  # padding stands after all that is scored, and is never looked at
        bos_id=tokenizer.bos_token_id if uses_bos else None,
    )
