"""The sizes of a model from its config.json, in a folder or in the hub's cache. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from feldspar.config import ArchitectureConfig
from feldspar.errors import TrainingError
from feldspar.student.bases.gguf_families import model_of
from feldspar.student.bases.gguf_header import SUFFIX, read_header
from feldspar.student.hub import hub_name

_SUMMED = (
    *("llama", "mistral", "granite", "qwen2", "qwen3"),
    *("gemma", "gemma2", "gemma3", "gemma3_text"),
)
"""Families whose layers are what `ArchitectureConfig` counts."""


def read_architecture(base: str) -> ArchitectureConfig | None:
    """Of a model folder or a hub id; None where it is not at hand or of another kind."""
    try:
        given = _read_config(base)
        if given is None:
            return None
        given = given.get("text_config", given)
        kind = str(given.get("model_type"))
        if kind not in _SUMMED:
            return None
        return ArchitectureConfig(
            hidden_size=given["hidden_size"],
            num_layers=given["num_hidden_layers"],
            intermediate_size=given["intermediate_size"],
            vocabulary=given["vocab_size"],
            num_heads=given["num_attention_heads"],
            num_kv_heads=given.get("num_key_value_heads"),
            head_size=given.get("head_dim"),
            qk_norm=kind.startswith(("qwen3", "gemma3")),
            # Gemma's files leave out what is its family's own.
            tied=given.get("tie_word_embeddings", kind.startswith("gemma")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_config(base: str) -> dict[str, Any] | None:
    if base.endswith(SUFFIX) and Path(base).is_file():
        try:
            return dict(model_of(read_header(Path(base))).config)
        except TrainingError:
            return None
    path = find_config(base)
    if path is None:
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def num_weights(folder: Path) -> int:
    """Values in a model's safetensors files, or in a GGUF file, from their headers; 0 where there
    are none, or where one cannot be read."""
    if folder.suffix == SUFFIX and folder.is_file():
        try:
            return read_header(folder).num_values
        except TrainingError:
            return 0
    total = 0
    for path in _weight_paths(folder):
        try:
            with safe_open(path, framework="numpy") as tensors:
                names = tensors.keys()
                shapes = [tensors.get_slice(name).get_shape() for name in names]
        except (OSError, SafetensorError):
            return 0
        total += sum(math.prod(shape) for shape in shapes)
    return total


def _weight_paths(folder: Path) -> list[Path]:
    """The files that transformers reads: others may lie there too, in another form or of an
    adapter. (model_files.py has it with its faults told, and with torch.)"""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def find_config(base: str) -> Path | None:
    """config.json of a folder, or of a hub id that was fetched before."""
    path = Path(base) / "config.json"
    if path.is_file():
        return path
    name = hub_name(base)
    if name is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name.id, "config.json", revision=name.revision)
    return Path(cached) if isinstance(cached, str) else None
