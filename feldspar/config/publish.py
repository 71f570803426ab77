"""What a recipe may say about a result that is published."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from feldspar.config.base import Count, Part
from feldspar.keys import Place, Speed
from feldspar.reference_scores import PUBLISHED_ROWS


class PublishConfig(Part):
    """What `feldspar publish` writes that only the author can know."""

    licence: str = ""
    """Licence of the result, by the hub's short name (`apache-2.0`). Empty: the one among those of
    the base and of all data under which all of them may be given on."""
    authors: tuple[str, ...] = ()
    """Authors for CITATION.cff. Empty: those whom the leaves name as their makers."""
    base_model: str = ""
    """The base's id on the hub, where the base is a folder: for the model card, and with a revision
    (`OWNER/NAME@COMMIT`) for an adapter. Empty: what the folder says of it, if anything."""
    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Precision of the published weights; checkpoints of a run are in float32. base: the base's
    own."""
    gguf_server: Place[str] = "auto"
    """Command that serves a GGUF file with llama.cpp, to put the run's exams to it: `llama-server
    -m {model} --port {port}`. auto: llama.cpp's `llama-server` or the wheel `xllamacpp`, where one
    is found. Empty: files are not examined."""
    max_shard_mb: Speed[Count] = 5000
    """Weights are split into files of at most this many million bytes."""
    private: Place[bool] = False
    """A repository that `--push` makes on the hub is private."""
    compare_with: tuple[str, ...] = ()
    """Published models (`Merlinite-7b`) whose scores the model card shows for comparison. Empty:
    all known ones with scores on the same benchmarks."""

    @field_validator("compare_with")
    @classmethod
    def _rows_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [row.model for row in PUBLISHED_ROWS]
        for name in names:
            if name not in known:
                raise ValueError(f"no published row of {name!r}; there are: {', '.join(known)}")
        return names
