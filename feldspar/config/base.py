"""What every table of a recipe is made of: `Part`, and the kinds of its values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
PathText = Annotated[str, Field(json_schema_extra={"format": "path"})]
OptionalPath = Annotated[str | None, Field(json_schema_extra={"format": "path"})]
"""A path or `world:NAME`. Its file's content decides a step's key, not its place."""


class Part(BaseModel):
    """A table of the recipe: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
