"""What a recipe may say about a result that is served."""

from __future__ import annotations

from feldspar.config.base import Count, Part
from feldspar.keys import Speed


class ServeConfig(Part):
    """What a request to `feldspar serve` may ask for. Address and port are command-line options."""

    max_tokens: Speed[Count] = 1024
    """Longest answer, also for requests that state no limit."""
    max_requests: Speed[Count] = 256
    """Requests running and waiting; more get 429."""
    max_request_tokens: Speed[Count] = 1 << 18
    """Largest work of one request in tokens: its prompts' (times `n` with `echo`) and its answers'
    (`n` times `max_tokens`), times 1 + `top_logprobs`. All requests together may be eight times as
    much."""
    max_body_bytes: Speed[Count] = 4 * 1024 * 1024
    """Largest request body in bytes; a larger one is refused (413)."""
