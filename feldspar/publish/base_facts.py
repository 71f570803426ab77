"""What a result takes over from its base: its id on the hub, and the precision of its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from feldspar.student.hub import hub_name
from feldspar.student.model_sizes import find_config

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_DTYPES = ("float32", "bfloat16", "float16")


def hub_id_of(base: str) -> str:
    """The id of a base on the hub, empty where it is not known: the base itself, its folder in the
    hub's cache, what its config.json says, or what its README says that it was made from."""
    name = hub_name(base)
    if name is not None and not Path(base).is_dir():
        return name.id
    for part in Path(base).parts:
        if found := _SNAPSHOT.fullmatch(part):
            return f"{found[1]}/{found[2]}"
    for said in (_config(base).get("_name_or_path"), front_matter(Path(base)).get("base_model")):
        if isinstance(said, str) and _HUB_ID.fullmatch(said):
            return said
    return ""


def dtype_of(base: str) -> str | None:
    """Of the base's weights by its config.json; None where that is not at hand or does not say."""
    config = _config(base)
    said = config.get("dtype", config.get("torch_dtype"))
    return said if said in _DTYPES else None


def front_matter(folder: Path) -> dict[str, Any]:
    """What stands in YAML before a folder's README; empty where there is nothing of the kind."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
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
