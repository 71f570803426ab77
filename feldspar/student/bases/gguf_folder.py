"""A GGUF file as a Hugging Face folder: dequantised once, for training needs whole weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from feldspar.errors import DiskError
from feldspar.files import first_folder, write_json
from feldspar.progress import Progress
from feldspar.student.bases.gguf_families import TensorTarget, model_of
from feldspar.student.bases.gguf_header import GgufHeader, TensorPlace, read_header
from feldspar.student.bases.gguf_words import make_words
from feldspar.student.bases.origin import ORIGIN

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_folder(path: Path, digest: str, folder: Path, progress: Progress) -> None:
    """Write the model of a GGUF file as `folder`, whole or not at all; others may do so at once.

    `digest`: of the file, noted in the folder. Raises TrainingError where it cannot be read.
    """
    header = read_header(path)
    config, targets = model_of(header)
    dtype = stored_dtype(header)
    words = make_words(header)
    weights = {}
    with progress.task(f"dequantising {path.name}", len(header.tensors), "tensors") as task:
        for tensor in header.tensors:
            target = targets[tensor.name]
            weights[target.name] = _restored(_values(path, tensor), target).to(dtype)
            task.advance()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with first_folder(folder) as beside:
            save_file(weights, beside / "model.safetensors", metadata={"format": "pt"})
            words.save_pretrained(beside)
            write_json(
                beside / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")}
            )
            ids = {key: value for key, value in config.items() if key.endswith("_token_id")}
            write_json(beside / "generation_config.json", ids)
            write_json(beside / ORIGIN, _origin(header, digest))
            (beside / "README.md").write_text(_readme(header), encoding="utf-8")
    except OSError as error:
        raise DiskError(
            f"{folder}: the base cannot be written: {error.strerror or error}"
        ) from error


def stored_dtype(header: GgufHeader) -> torch.dtype:
    """Of the weights when they are whole again: the file's own, and bfloat16 where it is quantised,
    whose steps are far coarser."""
    if header.is_quantised:
        return torch.bfloat16
    # Norms are stored in float32 by every file.
    large = max(header.tensors, key=lambda tensor: tensor.num_values)
    return _DTYPES[large.kind.name]


def _values(path: Path, tensor: TensorPlace) -> torch.Tensor:
    """A tensor in float32, of its own shape."""
    raw = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.num_bytes,))
    dtype = _DTYPES.get(tensor.kind.name)
    if dtype is not None:
        return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(tensor.shape).float()
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rows: npt.NDArray[Any] = np.array(raw).reshape(*tensor.shape[:-1], -1)
    return torch.from_numpy(dequantize(rows, GGMLQuantizationType(tensor.number)))


def _restored(values: torch.Tensor, target: TensorTarget) -> torch.Tensor:
    """As the model had it before it was converted."""
    if target.num_heads:
        # llama.cpp rotates neighbours, transformers the halves of a head.
        rows, columns = values.shape
        pairs = values.reshape(target.num_heads, rows // target.num_heads // 2, 2, columns)
        values = pairs.transpose(1, 2).reshape(rows, columns)
    return (values - target.added if target.added else values).contiguous()


def _origin(header: GgufHeader, digest: str) -> dict[str, object]:
    return {
        "file": header.path.name,
        "sha256": digest,
        "name": header.text("general.name") or "",
        "lost": header.what_was_lost(),
    }


def _readme(header: GgufHeader) -> str:
    """States what the file says of its licence and of the model that it was made from, which is not
    the one that this was tuned from (`general.base_model`)."""
    licence = header.text("general.license")
    lines = ["---", *([f"license: {json.dumps(licence)}"] if licence else [])]
    repository = header.text("general.source.repo_url") or header.text("general.repo_url")
    if repository and repository.startswith("https://huggingface.co/"):
        lines.append(
            f"base_model: {json.dumps(repository.removeprefix('https://huggingface.co/'))}"
        )
    name = header.text("general.name") or header.path.stem
    lines += ["---", "", f"# {name}", "", f"Made from `{header.path.name}` by Feldspar: "]
    return "\n".join(lines) + f"{header.what_was_lost()}.\n"
