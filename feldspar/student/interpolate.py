"""Weights between two checkpoints, computed in float32 one tensor at a time.

    merged = start + weight * (end - start)

after Wortsman et al. 2022 ("Robust fine-tuning of zero-shot models", section 3). One file of the
end and one tensor of the start are in memory at once, never a model.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from feldspar.errors import DiskError, TrainingError
from feldspar.files import whole_folder
from feldspar.records import Checkpoint
from feldspar.student.model import digest_checkpoint, find_model, load_tokenizer, read_model
from feldspar.student.model_files import quiet_transformers, weight_files


def interpolate(start: Checkpoint, end: Checkpoint, weight: float, path: Path) -> Checkpoint:
    """Write the model `weight` of the way from `start` to `end`: whole or absent.

    `weight` is above 0 and at most 1. Files, dtypes and tokenizer are the end's. Rows of embeddings
    and head for tokens that only the end has, such as a template's, are the end's too: the start's
    have no meaning. Raises TrainingError where the two are not of one shape.
    """
    first, last = find_model(start.path), find_model(end.path)
    only_of_end = _new_tokens(first, last)
    with whole_folder(path) as folder, _opened(first, last, path.parent) as tensors_of_start:
        try:
            for file in last.iterdir():
                if file.is_file() and file.suffix != ".safetensors":
                    shutil.copy2(file, folder / file.name)
            for file in weight_files(last):
                tensors = _merged_file(file, tensors_of_start, weight, only_of_end)
                save_file(tensors, folder / file.name, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise DiskError(f"{path}: the checkpoint cannot be written: {error}") from error
    digest = digest_checkpoint(path)
    return Checkpoint(path=str(path), digest=digest, phase=end.phase, step=end.step)


def _merged_file(
    file: Path, start: dict[str, Any], weight: float, only_of_end: _NewTokens
) -> dict[str, Tensor]:
    merged = {}
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            after = tensors.get_tensor(name)
            if name not in start:
                raise TrainingError(
                    f"train.merge: {name} is in {file.parent} and not in the start; merge "
                    "checkpoints of one model"
                )
            before = start[name].get_tensor(name)
            rows = only_of_end.rows if name in only_of_end.tensors else []
            merged[name] = _between(name, before, after, weight, rows)
    return merged


def _between(name: str, before: Tensor, after: Tensor, weight: float, rows: list[int]) -> Tensor:
    if not after.is_floating_point():
        return after
    has_new_rows = bool(rows) and before.shape[1:] == after.shape[1:] and len(before) <= len(after)
    if before.shape != after.shape and not has_new_rows:
        raise TrainingError(
            f"train.merge: {name} is {list(before.shape)} in the start and {list(after.shape)} in "
            "the end; merge checkpoints of one model"
        )
    ends = after.to(torch.float32)
    merged = ends.clone()
    shared = slice(len(before)) if before.ndim else ...
    merged[shared] = torch.lerp(before.to(torch.float32), ends[shared], weight)
    merged[rows] = ends[rows]
    return merged.to(after.dtype)


class _NewTokens:
    """Tokens that only the end has, and the tensors with a row for each token."""

    def __init__(self, rows: list[int], tensors: frozenset[str]) -> None:
        self.rows, self.tensors = rows, tensors


def _new_tokens(start: Path, end: Path) -> _NewTokens:
    known = load_tokenizer(str(start)).get_vocab()
    vocabulary = load_tokenizer(str(end)).get_vocab()
    if any(vocabulary.get(token) != number for token, number in known.items()):
        raise TrainingError(
            f"train.merge: {start} and {end} number their tokens differently; merge checkpoints of "
            "one model"
        )
    rows = sorted(number for token, number in vocabulary.items() if token not in known)
    return _NewTokens(rows, _token_tensors(end) if rows else frozenset())


def _token_tensors(folder: Path) -> frozenset[str]:
    """Names of the embeddings' and the head's tensors."""
    with quiet_transformers(), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tensors = {id(t) for layer in ends for t in layer.parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, tensor in named if id(tensor) in tensors)


@contextmanager
def _opened(start: Path, end: Path, beside: Path) -> Iterator[dict[str, Any]]:
    """By a tensor's name the open file that holds it. A start that names its tensors otherwise, as
    older files do, is written anew for the time being."""
    with ExitStack() as stack:
        found = _open_files(start, stack)
        wanted = _open_files(end, stack)
        if not wanted.keys() <= found.keys():
            rewritten = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=beside)))
            with quiet_transformers():
                read_model(str(start)).model.save_pretrained(rewritten)
            found = _open_files(rewritten, stack)
        yield found


def _open_files(folder: Path, stack: ExitStack) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in weight_files(folder):
        file = stack.enter_context(safe_open(path, framework="pt"))
        found |= dict.fromkeys(file.keys(), file)
    return found
