"""What every table of a recipe is made of: `Part`, and the kinds of its values."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

# Bounds are far above what anyone wants, and far below what would take a day to find out.
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Rate = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=10)]
Count = Annotated[int, Field(ge=1, le=10**12)]
NoneOrMore = Annotated[int, Field(ge=0, le=10**12)]
NonNegative = Annotated[float, Field(ge=0, le=1e12)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
SampleCount = Annotated[int, Field(ge=1, le=10**6)]
"""Samples, answers or calls for one leaf, seed or prompt."""
SmallCount = Annotated[int, Field(ge=1, le=10**4)]
"""Epochs, rounds, ranks: what is gone through again and again."""
PathText = Annotated[str, Field(json_schema_extra={"format": "path"})]
OptionalPath = Annotated[str | None, Field(json_schema_extra={"format": "path"})]
"""A path or `world:NAME`. Its file's content decides a step's key, not its place."""


def _without_credentials(url: str) -> str:
    """Raises an error that does not show the URL, where it holds a password or a key."""
    try:
        parts = urlsplit(url)
        named = {name.lower() for name, _ in parse_qsl(parts.query)}
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if parts.username is not None or parts.password is not None or named & _KEY_NAMES:
        raise PydanticCustomError(
            CREDENTIALS,
            "the URL holds a user name, a password or a key; take it out, put the key into an "
            "environment variable and name that in `key_variable`",
        )
    return url


CREDENTIALS = "credentials_in_url"
"""Type of the error whose input must not be shown."""
_KEY_NAMES = {"key", "api_key", "api-key", "apikey", "token", "access_token", "code", "sig"}
Endpoint = Annotated[str, AfterValidator(_without_credentials)]
"""A server's URL. Recipes are shared and kept in runs, so no key stands in one."""


class Part(BaseModel):
    """A table of the recipe: frozen, without unknown keys, and every number finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
