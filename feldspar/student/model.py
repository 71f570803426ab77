"""The small model: loaded, given its template's tokens, saved whole, and known by its content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import StudentConfig
from feldspar.errors import DiskError, TrainingError
from feldspar.files import whole_folder
from feldspar.records import Checkpoint, Conversation, Message
from feldspar.student.answering_weights import hold_to_answer
from feldspar.student.hub import download, hub_name
from feldspar.student.lm_head import Head, check_head, head_of
from feldspar.student.merged_weights import merged_weights
from feldspar.student.model_files import (
    CARD,
    CONTENT,
    WORDS,
    check_token_rows,
    check_weights,
    explain_loading,
    mend_generation,
    quiet_transformers,
    take_one_template,
)
from feldspar.student.precision import Dtype, find_precision, size_of_model
from feldspar.student.template.choose import (
    TemplateName,
    choose_template,
    has_chat_template,
    writes_lab,
)
from feldspar.student.template.layout import (
    TEMPLATE_DATE,
    Layout,
    OwnLayout,
    lab_chat_template,
    lab_turns,
)
from feldspar.student.template.render import Template
from feldspar.student.template.tokens import LAB

log = logging.getLogger(__name__)

DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TILE_ROWS = 64
"""A vocabulary of a multiple of so many rows keeps one when tokens are added."""
_ONE_THREAD_PARAMETERS = 5_000_000
"""Below this, threads wait for each other longer than they compute (benchmarks/LOG.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A causal language model with how it is spoken to and computed: in float32, or, where it only
    answers, in the dtype of the computation."""

    model: Any
    """transformers PreTrainedModel, in eval mode: dropout is never used."""
    tokenizer: Any
    """transformers PreTrainedTokenizerFast."""
    template: Template
    device: torch.device
    dtype: torch.dtype
    """Of the computation."""
    compile: bool | Literal["auto"] = "auto"
    """Whether layers are compiled. auto: in a training that is long enough (training/loop.py)."""
    trained_rows: torch.Tensor | None = None
    """Of embeddings and head, whose other rows are frozen. None: they are as other weights."""

    @property
    def head(self) -> Head:
        return head_of(self.model)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Where forward passes run: on as many threads as suit the model, and with autocast to
        `dtype` where that is not float32."""
        is_low = self.dtype != torch.float32
        with (
            compute_threads(self),
            torch.autocast(self.device.type, self.dtype) if is_low else nullcontext(),
        ):
            yield

    def hidden_states(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Last hidden states [B, T, H] of right-padded rows. Real tokens never see the padding."""
        # No attention mask: a causal model's tokens do not look at padding that comes after them.
        hidden: torch.Tensor = self.model.base_model(
            input_ids=ids_BT, use_cache=False
        ).last_hidden_state
        return hidden


@contextmanager
def compute_threads(student: Student) -> Iterator[None]:
    """Within it a small model on a CPU computes on one thread (docs/decisions/004); all others as
    torch is set. The number of threads is as before afterwards."""
    before = torch.get_num_threads()
    can_change = before > 1 and student.device.type == "cpu"
    if not can_change or student.num_parameters >= _ONE_THREAD_PARAMETERS:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_student(path: str, config: StudentConfig) -> Student:
    """Load a Hugging Face model directory, or hub id, and give it its template's tokens.

    Only safetensors are read and no code from the directory is run. Raises TrainingError with the
    cure when it cannot be loaded.
    """
    model, tokenizer = read_model(path)
    return make_student(model, tokenizer, config)


def load_to_answer(path: str, config: StudentConfig) -> Student:
    """The same for a model that is not trained: its weights are held in the dtype of the
    computation, so that no token waits for them to be cast."""
    student = load_student(path, config)
    hold_to_answer(student.model, student.dtype)
    return student


class ModelFiles(NamedTuple):
    """What a model directory holds, as transformers reads it."""

    model: Any
    tokenizer: Any


def read_model(path: str) -> ModelFiles:
    """The model and tokenizer of a directory, or hub id, as they are. Raises TrainingError."""
    folder = find_model(path)
    try:
        with quiet_transformers():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TrainingError(f"{path}: no causal language model can be loaded: {reason}") from error
    explain_loading(path, info)
    mend_generation(model.generation_config)
    take_one_template(tokenizer)
    return ModelFiles(model, tokenizer)


def make_student(model: Any, tokenizer: Any, config: StudentConfig) -> Student:
    """Make a student of a transformers model and tokenizer, also of a new one.

    Role, stop and pad tokens that are missing are added; their embeddings start at the mean.
    """
    _check_fast(tokenizer)
    device = find_device(config.device)
    template = _make_template(model, tokenizer, config)
    model.to(device).eval()
    check_head(model)
    dtype = find_dtype(config, device, model)
    for where_it_came_from in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(where_it_came_from, None)
    return Student(
        model=model,
        tokenizer=tokenizer,
        template=template,
        device=device,
        dtype=dtype,
        compile=config.compile,
    )


def load_template(path: str, config: StudentConfig) -> Template:
    """How a checkpoint that a student was saved as is spoken to; its weights are not read.

    Raises TrainingError where it cannot be read, or lacks a token that a student is given.
    """
    return _make_template(None, load_tokenizer(path), config)


def save_checkpoint(
    student: Student, path: Path, *, phase: str, step: int, max_shard_mb: int = 5000
) -> Checkpoint:
    """Write a directory that plain transformers loads: whole or absent."""
    try:
        with whole_folder(path) as folder, quiet_transformers():
            weights = merged_weights(student.model)
            student.model.save_pretrained(
                folder, state_dict=weights, max_shard_size=f"{max_shard_mb}MB"
            )
            student.tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{path}: the checkpoint cannot be written: {error}") from error
    return Checkpoint(path=str(path), digest=digest_checkpoint(path), phase=phase, step=step)


def digest_checkpoint(path: Path, patterns: Sequence[str] = CONTENT) -> str:
    """sha256 of the names and contents of a checkpoint's weights, tokenizer and configuration."""
    files = sorted({file for pattern in patterns for file in path.glob(pattern)})
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append([file.name, hashlib.file_digest(stream, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def check_base(path: str, config: StudentConfig) -> str:
    """Look at a base's files, all of its weights, its tokenizer and its template, without loading
    the model; a sentence about what is there.

    `path`: a directory or hub id, as in `base_checkpoint`. Raises TrainingError with the place and
    the cure.
    """
    folder = find_model(path)
    num_tensors = check_weights(folder)
    tokenizer = load_tokenizer(str(folder))
    is_lab = (choose_template(tokenizer) if config.template == "auto" else config.template) == "lab"
    if is_lab:
        check_token_rows(folder, tokenizer, ())
        is_other = tokenizer.chat_template and not writes_lab(tokenizer)
        instead = " in place of the base's own" if is_other else ""
        return f"{num_tensors} tensors, all finite; the lab template{instead}"
    template = _make_template(None, tokenizer, config)
    chat = [Message(role="user", content="?"), Message(role="assistant", content="!")]
    turn = template.render(Conversation(id="", source="", messages=tuple(chat)))
    check_token_rows(folder, tokenizer, [*map(int, turn.ids), template.stop_id, template.pad_id])
    says = f"{num_tensors} tensors, all finite; its own template ends answers with "
    says += repr(tokenizer.convert_ids_to_tokens(template.stop_id))
    if template.asks_date:
        says += f" and is told that today is {TEMPLATE_DATE:%d %b %Y}, on every day"
    return says


def base_checkpoint(path: str) -> Checkpoint:
    """The model that a run starts from, by directory or hub id. Raises TrainingError."""
    folder = find_model(path)
    return Checkpoint(path=str(folder), digest=digest_checkpoint(folder))


def words_checkpoint(path: str) -> Checkpoint:
    """A model that is computed elsewhere, by its tokenizer's folder or hub id; it may lack weights.

    Raises TrainingError.
    """
    folder = Path(path)
    if not folder.is_dir():
        folder = _download(path, WORDS)
    if not (folder / "tokenizer.json").is_file():
        raise TrainingError(f"{path}: no tokenizer.json; name the folder of the model's tokenizer")
    return Checkpoint(path=str(folder), digest=digest_checkpoint(folder, WORDS))


def load_tokenizer(path: str) -> Any:
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TrainingError(f"{path}: no tokenizer can be loaded: {reason}") from error
    _check_fast(tokenizer)
    take_one_template(tokenizer)
    return tokenizer


def _check_fast(tokenizer: Any) -> None:
    if not tokenizer.is_fast:
        raise TrainingError("the base has no tokenizer.json; save it with a fast tokenizer first")


def find_device(wanted: str) -> torch.device:
    """The device named, or the best for `auto`. Raises TrainingError where there is none."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if not there[wanted]:
        raise TrainingError(f'student.device = "{wanted}": this machine has none; use "auto"')
    return torch.device(wanted)


def find_dtype(config: StudentConfig, device: torch.device, model: Any) -> torch.dtype:
    """Of the computation of a transformers model, as the configuration says, or as suits device,
    model and machine. A run's configuration says it (precision.py)."""
    found = find_precision(config, device.type, size_of_model(model))
    return DTYPES[found.dtype]


def with_template(config: StudentConfig) -> StudentConfig:
    """The same with the template that `auto` means for its base: it decides results, so keys must
    hold it. A hub id is fetched. Raises TrainingError."""
    if config.template != "auto":
        return config
    folder = find_model(config.base)
    name: TemplateName = "lab"
    if has_chat_template(folder):
        name = choose_template(load_tokenizer(str(folder)))
    return config.model_copy(update={"template": name})


def find_model(path: str) -> Path:
    """The folder of a directory or hub id, which is fetched. Raises TrainingError."""
    folder = Path(path)
    if not folder.is_dir():
        folder = _download(path)
    if not (folder / "config.json").is_file():
        raise TrainingError(f"{path}: no config.json; name a Hugging Face model directory")
    if not any(folder.glob("*.safetensors")):
        raise TrainingError(
            f"{path}: no *.safetensors; other weights may hold code and are not read, so save the "
            "model again with safe_serialization"
        )
    return folder


def _download(text: str, patterns: Sequence[str] = CONTENT) -> Path:
    name = hub_name(text)
    if name is None:
        raise TrainingError(f"{text}: no such model directory")
    return download(name, [*patterns, CARD])


def _make_template(model: Any, tokenizer: Any, config: StudentConfig) -> Template:
    has_bos = uses_bos(tokenizer)
    own_ends = _ends_of(model, tokenizer)
    name = choose_template(tokenizer) if config.template == "auto" else config.template
    if name == "lab":
        _add_tokens(model, tokenizer, LAB.trained)
        tokenizer.eos_token = LAB.stop
        tokenizer.chat_template = lab_chat_template(bos=has_bos, system_prompt=config.system_prompt)
        layout: Layout = lab_turns
        stop_id = tokenizer.convert_tokens_to_ids(LAB.stop)
    else:
        if not tokenizer.chat_template:
            raise TrainingError('the base has no chat template of its own; use template = "lab"')
        layout = own = OwnLayout(tokenizer)
        stop_id = tokenizer.convert_tokens_to_ids(own.stop_text)
    if name == "own":
        # Padding is never looked at, so a row of its own would change the vocabulary for nothing.
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = own.stop_text
    elif tokenizer.pad_token_id is None or tokenizer.pad_token_id == stop_id:
        _add_tokens(model, tokenizer, (LAB.pad,))
        tokenizer.pad_token = LAB.pad
    if model is not None:
        # Base, result and other programs are to end answers alike.
        ends = [stop_id, *sorted(own_ends - {stop_id})]
        model.generation_config.eos_token_id = ends if len(ends) > 1 else stop_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.config.eos_token_id, model.config.pad_token_id = stop_id, tokenizer.pad_token_id
    return Template(
        tokenizer,
        layout=layout,
        stop_id=stop_id,
        pad_id=tokenizer.pad_token_id,
        bos_id=tokenizer.bos_token_id if has_bos else None,
        system_prompt=config.system_prompt,
        other_ends=own_ends,
    )


def _ends_of(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that a model ends its texts with, as its files say: special ones, since a config
    without any has its class's number, which may be a word of this tokenizer."""
    ends = {tokenizer.eos_token_id}
    for config in () if model is None else (model.generation_config, model.config):
        named = getattr(config, "eos_token_id", None)
        ends.update(named if isinstance(named, list) else [named])
    added = tokenizer.added_tokens_decoder
    return {i for i in ends if i in added and added[i].special}


def uses_bos(tokenizer: Any) -> bool:
    ids = tokenizer("")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _add_tokens(model: Any, tokenizer: Any, tokens: tuple[str, ...]) -> None:
    """Make `tokens` special; rows of embeddings and head that no token had start at the mean."""
    known = len(tokenizer)
    vocabulary = tokenizer.get_vocab()
    new = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_tokens(new, special_tokens=True)
    added = [tokenizer.convert_tokens_to_ids(token) for token in tokens if token not in vocabulary]
    if not added:
        return
    if model is None:
        missing = ", ".join(t for t in tokens if t not in vocabulary)
        raise TrainingError(
            f"{tokenizer.name_or_path}: no checkpoint of a run: it has no {missing}"
        )
    log.info("added tokens %s", ", ".join(t for t in tokens if t not in vocabulary))
    with quiet_transformers(), torch.no_grad():
        num_rows = model.get_input_embeddings().weight.shape[0]
        if max(added) >= num_rows:
            # Matrices of whole tiles are faster, and servers split them evenly: it stays so.
            tile = _TILE_ROWS if num_rows % _TILE_ROWS == 0 else None
            model.resize_token_embeddings(
                len(tokenizer), pad_to_multiple_of=tile, mean_resizing=False
            )
        layers = [model.get_input_embeddings(), model.get_output_embeddings()]
        tensors = [layer.weight for layer in layers]
        if getattr(layers[1], "bias", None) is not None:
            tensors.append(layers[1].bias)
        for tensor in {id(t): t for t in tensors}.values():
            mean = tensor[:known].mean(dim=0)
            tensor[added] = mean
            # Rows without a token are not left to chance either.
            tensor[max(num_rows, len(tokenizer)) :] = mean
