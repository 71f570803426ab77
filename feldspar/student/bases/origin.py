"""What a model folder was made from, where that was a GGUF file. No torch."""

from __future__ import annotations

import json
from pathlib import Path

ORIGIN = "gguf.json"
"""Beside the weights."""


def says_of_origin(folder: Path) -> str | None:
    """What was lost before the model in `folder` was made, if it is of a GGUF file."""
    try:
        told = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        return f"{told['file']}, dequantised: {told['lost']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
