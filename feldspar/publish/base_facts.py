"""What a result takes over from its base: its id on the hub, and the precision of its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from feldspar.student.bases.origin import ORIGIN
from feldspar.student.hub import hub_name
from feldspar.student.model_sizes import find_config

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_DTYPES = ("float32", "bfloat16", "float16")


def hub_id_of(base: str) -> str:
    """The id of a base on the hub, empty where it is not known: the base itself, its folder in the
    hub's cache, or what its GGUF file was converted from. Other READMEs name the model that a base
    was tuned from, whose weights are others."""
    name = hub_name(base)
    if name is not None and not Path(base).is_dir():
        return name.id
    for part in Path(base).parts:
        if found := _SNAPSHOT.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    said = front_matter(base).get("base_model") if (Path(base) / ORIGIN).is_file() else None
    return said if isinstance(said, str) and _HUB_ID.fullmatch(said) else ""


def dtype_of(base: str) -> str | None:
    """Of the base's weights by its config.json; None where that is not at hand or does not say."""
    config = _config(base)
    said = config.get("dtype", config.get("torch_dtype"))
    return said if said in _DTYPES else None


def front_matter(base: str) -> dict[str, Any]:
    """What stands in YAML before the README of a folder, or of a hub id that was fetched; empty
    where there is nothing of the kind."""
    config = find_config(base)
    folder = config.parent if config else Path(base)
    try:
        text = (folder / "README.md").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        fields = yaml.safe_load(front.group(1)) if front else None
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _config(base: str) -> dict[str, Any]:
    path = find_config(base)
    try:
        said = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
