"""What a recipe may say about giving its result to others: published, and served."""

from __future__ import annotations

from feldspar.config.part import Count, Part


class PublishConfig(Part):
    """`feldspar publish`: what only its author can know of a result."""

    licence: str = ""
    """Of the result, by the hub's short name (`apache-2.0`). Empty: that of the base."""
    max_shard_mb: Count = 5000
    """Weights are split into files of at most so many million bytes."""


class ServeConfig(Part):
    """`feldspar serve`: what a request may ask of the server. Address and port are its flags."""

    max_tokens: Count = 1024
    """Longest answer, and how long one may be that states no limit."""
    max_requests: Count = 256
    """Under way and waiting together; more are told to come again."""
    max_body_bytes: Count = 4 * 1024 * 1024
