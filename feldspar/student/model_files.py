"""Whether a folder holds the model that its config.json speaks of: every tensor in its shape and
finite, and a row of the embedding for every token that can come up.

transformers fills what a file lacks with random numbers, so nothing here is left to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from feldspar.errors import TrainingError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_MOST_HEADER_BYTES = 1 << 27
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_FEW = 3
"""Names that an error shows."""

CONTENT = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
"""The files that decide what a checkpoint says. Others (pickles, above all) are not read."""
CARD = "README.md"
"""Says under which licence a model is; it decides nothing that the model says."""
WORDS = tuple(pattern for pattern in CONTENT if "safetensors" not in pattern)
"""Those of them that decide how it is spoken to."""


def check_weights(folder: Path) -> int:
    """Compare what the files hold with what config.json asks for, then read all of it once.

    Gives the number of tensors. Raises TrainingError with the tensor's name, or the file's, and
    the cure.
    """
    config = _read_config(folder)
    files = weight_files(folder)
    shapes = {name: shape for file in files for name, shape in _shapes(file).items()}
    _check_index(folder, shapes)
    explain_loading(folder, _loading_info(folder, config, shapes))
    for file in files:
        _check_finite(file)
    return len(shapes)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from. Raises TrainingError where one is missing."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        _check_is_there(folder / WEIGHTS)
        return [folder / WEIGHTS]
    files = sorted({folder / name for name in _weight_map(index).values()})
    for file in files:
        _check_is_there(file)
    return files


def explain_loading(folder: Path | str, info: Mapping[str, Iterable[Any]]) -> None:
    """Raise TrainingError where transformers had to make up tensors, as its report says."""
    for name, there, wanted in sorted(info.get("mismatched_keys", ())):
        raise TrainingError(
            f"{folder}: {name} is {list(there)} in the file and {list(wanted)} by config.json; "
            "fetch both from one place"
        )
    missing = sorted(info.get("missing_keys", ()))
    if not missing:
        return
    unexpected = sorted(info.get("unexpected_keys", ()))
    prefix = _common_prefix(missing, unexpected)
    if prefix:
        raise TrainingError(
            f"{folder}: {missing[0]} is not in the files, {prefix}{missing[0]} is: save the model "
            f"again with the names' {prefix!r} taken off"
        )
    more = f" (nor are {len(missing) - 1} more)" if len(missing) > 1 else ""
    raise TrainingError(
        f"{folder}: {missing[0]} is not in the files{more}, and training would start from random "
        "numbers there; fetch the model again, or save it whole"
    )


def check_token_rows(folder: Path | str, tokenizer: Any, written: Iterable[int]) -> None:
    """Raise TrainingError where a token has no row in the embedding: one of the vocabulary, or one
    of those `written` by the template. Special tokens that nobody writes may lack theirs."""
    num_rows = _num_rows(Path(folder))
    if num_rows is None or len(tokenizer) <= num_rows:
        return
    added = tokenizer.added_tokens_decoder
    vocabulary = {number: token for token, number in tokenizer.get_vocab().items()}
    bad = {n for n in vocabulary if n >= num_rows and not (n in added and added[n].special)}
    bad |= {number for number in written if number >= num_rows}
    if bad:
        names = ", ".join(repr(vocabulary[n]) for n in sorted(bad)[:_FEW])
        raise TrainingError(
            f"{folder}: the embedding has {num_rows} rows and the tokenizer {len(tokenizer)} "
            f"tokens, so {names} cannot be looked up; take the tokenizer that belongs to the "
            "weights, or resize the model's embeddings and save it again"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers draws its own bars, and warns of what is done on purpose here."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _check_is_there(folder / name)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); fetch the model again") from error
    if not isinstance(given, dict):
        raise TrainingError(f"{path}: not a model's configuration; fetch the model again")
    if isinstance(method := given.get("quantization_config"), dict):
        how = method.get("quant_method") or "some method"
        raise TrainingError(
            f"{folder}: its weights are quantised ({how}), and training needs them whole; take the "
            "folder that it was quantised from"
        )
    return given


def _check_is_there(file: Path) -> None:
    if not file.is_file():
        raise TrainingError(f"{file}: no such file; fetch the model again")
    with file.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise TrainingError(
                f"{file}: a git-lfs pointer, not the file itself; run `git lfs pull` in its folder"
            )


def _weight_map(index: Path) -> dict[str, str]:
    _check_is_there(index)
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{index}: cannot be read as a list of tensors; fetch the model again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise TrainingError(f"{index}: cannot be read as a list of tensors; fetch the model again")
    return found


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Of each tensor, from the header alone; the file must be as long as the header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        num_bytes = int.from_bytes(stream.read(8), "little")
        if not 2 <= num_bytes <= min(size, _MOST_HEADER_BYTES):
            raise TrainingError(f"{file}: not a safetensors file; fetch it again")
        header = stream.read(num_bytes)
    try:
        told = json.loads(header)
        tensors = {name: about for name, about in told.items() if name != "__metadata__"}
        end = max((about["data_offsets"][1] for about in tensors.values()), default=0)
        shapes = {name: tuple(map(int, about["shape"])) for name, about in tensors.items()}
        kinds = {name: about["dtype"] for name, about in tensors.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise TrainingError(f"{file}: its header is damaged; fetch it again") from error
    if size != 8 + num_bytes + end:
        raise TrainingError(
            f"{file}: cut off: {size:,} bytes of {8 + num_bytes + end:,} are there; fetch it again"
        )
    for name, kind in kinds.items():
        if kind not in _FLOATS and name.endswith("weight"):
            raise TrainingError(
                f"{file}: {name} is stored as {kind}: quantised weights cannot be trained; take "
                "the model that it was made from"
            )
    return shapes


def _check_index(folder: Path, shapes: Mapping[str, object]) -> None:
    """What a list of shards names must be in them."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return
    for name, file in _weight_map(folder / INDEX).items():
        if name not in shapes:
            raise TrainingError(
                f"{folder}: {name} is not in {file}, where {INDEX} has it; fetch that file again"
            )


def _loading_info(
    folder: Path, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Iterable[Any]]:
    """What transformers finds missing when it loads tensors of these names and shapes.

    The tensors are one number seen as many, so no weight is read and no memory is taken.
    """
    number = torch.zeros(1, dtype=torch.bfloat16)
    weights = {name: number.expand(shape) for name, shape in shapes.items()}
    try:
        with quiet_transformers(), no_init_weights():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            with torch.device("meta"):
                kind = type(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
            _, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.bfloat16,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        name = given.get("model_type")
        raise TrainingError(
            f"{folder}: no causal language model can be made of its config.json (model_type "
            f"{name!r}): {reason}"
        ) from error
    found: Mapping[str, Iterable[Any]] = info
    return found


def _common_prefix(missing: list[str], unexpected: list[str]) -> str:
    """What all of the unexpected names have before the missing ones' own, if anything."""
    first = next((name for name in unexpected if name.endswith(missing[0])), "")
    prefix = first.removesuffix(missing[0])
    return prefix if prefix and all(name.startswith(prefix) for name in unexpected) else ""


def _check_finite(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                if not tensor.is_floating_point() or not tensor.numel():
                    continue
                low, high = (float(end) for end in tensor.aminmax())
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise TrainingError(
                        f"{file}: {name} has values that are not finite (NaN or infinity); fetch "
                        "the model again, or take a checkpoint from before they came in"
                    )
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{file}: cannot be read: {error}; fetch it again") from error


def _num_rows(folder: Path) -> int | None:
    """Rows of the embedding, by config.json."""
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sizes = given.get("text_config") or given
    rows = sizes.get("vocab_size") if isinstance(sizes, dict) else None
    return rows if isinstance(rows, int) else None


_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff")


def mend_generation(config: Any) -> None:
    """Leave out how to sample where a file says not to: it is read with a warning and cannot be
    saved."""
    try:
        config.validate(strict=True)
    except ValueError:
        for name in (*_OF_SAMPLING, "eta_cutoff"):
            if getattr(config, name, None) is not None:
                setattr(config, name, None)


def take_one_template(tokenizer: Any) -> None:
    """Of several chat templates by name the one for chats. Raises TrainingError."""
    if isinstance(tokenizer.chat_template, dict):
        try:
            tokenizer.chat_template = tokenizer.get_chat_template()
        except ValueError as error:
            raise TrainingError(
                f'the base has chat templates by name and none called "default": {error}'
            ) from error
