"""What a recipe may say about a result that is served."""

from __future__ import annotations

from feldspar.config.base import Count, Part
from feldspar.keys import Speed


class ServeConfig(Part):
    """`feldspar serve`: what a request may ask of the server. Address and port are its flags."""

    max_tokens: Speed[Count] = 1024
    """Longest answer, and how long one may be that states no limit."""
    max_requests: Speed[Count] = 256
    """Under way and waiting together; more are told to come again."""
    max_body_bytes: Speed[Count] = 4 * 1024 * 1024
