"""One batching engine for exams, preference tuning, chat and server: requests join between steps.

    for row in Engine(student).run([Request(ids=prompt, keys=(key,), max_new_tokens=64)]):
        ...                          # row.ids has one token more; row.finish says whether it ended

Every draw is a function of (key, token number): an answer does not depend on its company, up to
float noise. One thread at a time may use an engine.

Shapes: R rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from feldspar.student.counter_rng import probe_tokens, uniforms
from feldspar.student.inference.fallback_cache import FallbackCache
from feldspar.student.inference.kv_cache import CacheSegment, KVCache, UnsupportedAttention
from feldspar.student.inference.token_sampler import TokenLogProb, log_probs_of, sample_tokens
from feldspar.student.model import Student

MAX_ROWS = 256
"""Rows computed at once. More bring little on any device, and cost memory."""
_PREFILL_TOKENS = 1 << 13
"""Prompt tokens computed in one step, so that rows under way need not wait long."""
_ALIKE, _FEWEST_ALIKE = 0.8, 32
"""Prompts are padded to the longest: shorter than this part of it, they wait for the next group,
once one has so many."""
_LEAST_JOINING = 1 / 16
"""Of the rows under way: fewer wait for more to join with, unless no other waits behind them."""
_CPU_BYTES = 2 << 30
"""For keys and values; on a GPU, half of what is free."""
_HOLD = "\ufffd"
"""What a decoder writes for a character whose last bytes are still to come."""

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A prompt and how its answers are drawn: one answer for each key."""

    ids: Sequence[int]
    keys: Sequence[int]
    """64 bits for each answer: the same key draws the same answer."""
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end an answer, which is cut before them."""
    num_log_probs: int | None = None
    """Likeliest tokens to give with each token's log-probability; None gives neither."""
    is_watched: bool = False
    """Whether the text is wanted after every step."""


@dataclass(eq=False, slots=True)
class EngineRow:
    """An answer under way, or ended."""

    request: Request
    draw: int
    ids: list[int] = field(default_factory=list)
    """Its stop token is the last."""
    text: str = ""
    """Kept current where the request is watched or has stop texts; else set at the end."""
    settled: int = 0
    """Characters of the text that will not change, if it is kept current."""
    log_probs: list[TokenLogProb] = field(default_factory=list)
    finish: Finish | None = None
    segment: CacheSegment | None = None
    is_ended: bool = False
    """Whether it came to its stop token or to a stop text."""


class Engine:
    """Draws answers for all requests that were added, each step one token of each row."""

    def __init__(self, student: Student) -> None:
        self.student = student
        self._waiting: deque[Request] = deque()
        self._cache: KVCache | None = KVCache(student)
        self._fallbacks: list[tuple[FallbackCache, list[EngineRow]]] = []
        self._rows: dict[int, EngineRow] = {}
        """Rows with a segment, by its id."""
        self._reserved: dict[int, int] = {}
        """Tokens of each request under way, by its id."""
        self._window = _window(student.model)
        bytes_per_token = 0
        with torch.inference_mode(), student.computing():
            try:
                bytes_per_token = _try_cache(student)
            except UnsupportedAttention:
                self._cache = None
        self.max_tokens = _memory(student) // (bytes_per_token or _guess_bytes(student))
        """Of all requests under way, whose memory is set aside when they join."""

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._rows or self._fallbacks)

    @property
    def requests(self) -> list[Request]:
        """All that were added and have not ended."""
        under_way = {id(row.request): row.request for row in self._under_way()}
        return [*self._waiting, *under_way.values()]

    @property
    def num_rows(self) -> int:
        return len(self._rows) + sum(len(rows) for _, rows in self._fallbacks)

    def add(self, request: Request) -> None:
        """Queue a request; it joins when there is room."""
        assert request.ids
        assert 0 < len(request.keys) <= MAX_ROWS, len(request.keys)
        self._waiting.append(request)

    def cancel(self, request: Request) -> None:
        """Forget a request, waiting or under way."""
        if request in self._waiting:
            self._waiting.remove(request)
        self._remove([row for row in self._under_way() if row.request is request])

    def run(self, requests: Sequence[Request]) -> Generator[EngineRow, None, None]:
        """Draw all answers: each row, whenever it has a token more, until all have ended.

        Requests that were cancelled meanwhile count as ended; so do all when the caller leaves.
        """
        for request in requests:
            self.add(request)
        try:
            while self.is_busy:
                yield from self.step()
        finally:
            if self.is_busy:
                for request in requests:
                    self.cancel(request)

    def step(self) -> list[EngineRow]:
        """Let requests join, compute one token of each row, and give the rows."""
        with torch.inference_mode(), self.student.computing():
            rows: list[EngineRow] = []
            hidden: list[Tensor] = []
            # Rows under way go first: those that join have their first hidden state already.
            if self._rows:
                assert self._cache is not None
                now = [self._rows[id(segment)] for segment in self._cache.rows]
                hidden.append(self._cache.advance([row.ids[-1] for row in now]))
                rows += now
            for fallback, of_fallback in self._fallbacks:
                hidden.append(fallback.advance([row.ids[-1] for row in of_fallback]))
                rows += of_fallback
            for joined, hidden_RH in self._join():
                hidden.append(hidden_RH)
                rows += joined
            if rows:
                self._extend(rows, torch.cat(hidden))
        self._read(rows)
        self._remove([row for row in rows if row.finish])
        return rows

    def _under_way(self) -> list[EngineRow]:
        return [*self._rows.values(), *(row for _, rows in self._fallbacks for row in rows)]

    def _join(self) -> Iterator[tuple[list[EngineRow], Tensor]]:
        """Rows of the requests for which there is room, with hidden states [R, H]."""
        admitted = self._admit()
        of_window = [r for r in admitted if self._fits(r)]
        for group in _alike(of_window):
            yield self._join_cache(group)
        others = [r for r in admitted if not self._fits(r)]
        for group in _alike(others):
            rows = [EngineRow(r, draw) for r in group for draw in range(len(r.keys))]
            fallback = FallbackCache(
                self.student, [r.ids for r in group], [len(r.keys) for r in group]
            )
            self._fallbacks.append((fallback, rows))
            yield rows, _repeated(fallback.hidden_PH, group)

    def _join_cache(self, group: list[Request]) -> tuple[list[EngineRow], Tensor]:
        assert self._cache is not None
        hidden_PH, keys_values = self._cache.prefill([r.ids for r in group])
        rows = []
        for place, request in enumerate(group):
            num = len(request.keys)
            segments = self._cache.add_rows(keys_values[:, place], len(request.ids), num)
            for draw, segment in enumerate(segments):
                rows.append(EngineRow(request, draw, segment=segment))
                self._rows[id(segment)] = rows[-1]
        return rows, _repeated(hidden_PH, group)

    def _admit(self) -> list[Request]:
        joining, is_full = self._with_room()
        num_joining = sum(len(request.keys) for request in joining)
        # While others queue for the room of rows under way, a few are worth no pass of their own.
        if is_full and num_joining < _LEAST_JOINING * self.num_rows:
            return []
        for request in joining:
            self._waiting.popleft()
            self._reserved[id(request)] = _tokens_of(request)
        return joining

    def _with_room(self) -> tuple[list[Request], bool]:
        """The first of those that wait, as many as there is room for and as one pass takes; and
        whether it was room that the next one lacked."""
        joining: list[Request] = []
        num_rows, num_reserved, num_prompt = self.num_rows, sum(self._reserved.values()), 0
        for request in self._waiting:
            num_rows += len(request.keys)
            num_reserved += _tokens_of(request)
            num_prompt += len(request.ids)
            is_first = not (joining or self._reserved)
            has_room = num_rows <= MAX_ROWS and num_reserved <= self.max_tokens
            if not is_first and not (has_room and (num_prompt <= _PREFILL_TOKENS or not joining)):
                return joining, not has_room
            joining.append(request)
        return joining, False

    def _fits(self, request: Request) -> bool:
        if self._cache is None:
            return False
        return self._window is None or len(request.ids) + request.max_new_tokens <= self._window

    def _extend(self, rows: list[EngineRow], hidden_RH: Tensor) -> None:
        """Give each row its next token, by as many rows as have their logits held at once."""
        at_once = self.student.head.chunk_rows
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            self._extend_part(rows[part], hidden_RH[part])

    def _extend_part(self, rows: list[EngineRow], hidden_RH: Tensor) -> None:
        logits_RV = self.student.head.logits(hidden_RH)
        requests = [row.request for row in rows]
        keys = np.array([r.request.keys[r.draw] for r in rows], dtype=np.uint64)
        steps = np.array([len(row.ids) for row in rows], dtype=np.uint64)
        tokens = sample_tokens(
            logits_RV,
            np.array([r.temperature for r in requests], dtype=np.float64),
            np.array([r.top_p for r in requests], dtype=np.float64),
            uniforms(keys, steps),
        ).tolist()
        for row, token in zip(rows, tokens, strict=True):
            row.ids.append(token)
        wanted = [i for i, r in enumerate(requests) if r.num_log_probs is not None]
        if wanted:
            found = log_probs_of(
                logits_RV[torch.tensor(wanted, device=logits_RV.device)],
                [tokens[i] for i in wanted],
                [requests[i].num_log_probs or 0 for i in wanted],
            )
            for i, log_prob in zip(wanted, found, strict=True):
                rows[i].log_probs.append(log_prob)

    def _read(self, rows: list[EngineRow]) -> None:
        """Find which rows end here, and bring their texts up to date."""
        end_ids = self.student.template.end_ids
        for row in rows:
            if row.ids[-1] in end_ids:
                row.finish, row.is_ended = "stop", True
            elif len(row.ids) == row.request.max_new_tokens:
                row.finish = "length"
        read = [r for r in rows if r.finish or r.request.is_watched or r.request.stop]
        texts = self.student.template.decode_answers([row.ids for row in read])
        for row, text in zip(read, texts, strict=True):
            _set_text(row, text)

    def _remove(self, gone: list[EngineRow]) -> None:
        if not gone:
            return
        leaving = [row.segment for row in gone if row.segment]
        if self._cache is not None and leaving:
            self._cache.remove_rows(leaving)
        for segment in leaving:
            del self._rows[id(segment)]
        for place in range(len(self._fallbacks) - 1, -1, -1):
            fallback, rows = self._fallbacks[place]
            kept = [i for i, row in enumerate(rows) if row not in gone]
            if not kept:
                del self._fallbacks[place]
            elif len(kept) < len(rows):
                fallback.keep(kept)
                rows[:] = [rows[i] for i in kept]
        left = {id(row.request) for row in self._under_way()}
        self._reserved = {key: tokens for key, tokens in self._reserved.items() if key in left}


def prompt_log_probs(
    student: Student, ids: Sequence[int], num_likeliest: int
) -> list[TokenLogProb]:
    """What the model gives each token of a prompt but the first."""
    found: list[TokenLogProb] = []
    with torch.inference_mode(), student.computing():
        hidden_TH = student.hidden_states(torch.tensor([ids], device=student.device))[0, :-1]
        step = student.head.chunk_rows
        for start in range(0, len(hidden_TH), step):
            tokens = list(ids[start + 1 : start + 1 + step])
            logits_TV = student.head.logits(hidden_TH[start : start + step])
            found += log_probs_of(logits_TV, tokens, [num_likeliest] * len(tokens))
    return found


def _set_text(row: EngineRow, text: str) -> None:
    """Cut the text before the first stop text, and say how much of it stands for good."""
    stop = row.request.stop
    cuts = [place for place in (text.find(s) for s in stop) if place >= 0]
    if cuts:
        row.text, row.finish, row.is_ended = text[: min(cuts)], "stop", True
        row.settled = len(row.text)
        return
    row.text, row.settled = text, len(text)
    if row.finish is None:
        while row.settled and text[row.settled - 1] == _HOLD:
            row.settled -= 1
        # The end may be the beginning of a stop text.
        for end in stop:
            for size in range(min(len(end) - 1, row.settled), 0, -1):
                if text.endswith(end[:size], 0, row.settled):
                    row.settled -= size
                    break


def _tokens_of(request: Request) -> int:
    """Whose memory is set aside."""
    return len(request.ids) + len(request.keys) * request.max_new_tokens


def _alike(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Requests of like length, as many as may be computed at once."""
    group: list[Request] = []
    for request in sorted(requests, key=lambda r: -len(r.ids)):
        is_full = group and (len(group) + 1) * len(group[0].ids) > _PREFILL_TOKENS
        is_padded = len(group) >= _FEWEST_ALIKE and len(request.ids) < _ALIKE * len(group[0].ids)
        if is_full or is_padded:
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def _repeated(hidden_PH: Tensor, group: Sequence[Request]) -> Tensor:
    num_rows = torch.tensor([len(r.keys) for r in group], device=hidden_PH.device)
    return hidden_PH.repeat_interleave(num_rows, dim=0)


def _window(model: Any) -> int | None:
    """Tokens that every layer sees of what came before; None is all."""
    config = model.config.get_text_config()
    if not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)


def _memory(student: Student) -> int:
    if student.device.type == "cuda":
        free: int = torch.cuda.mem_get_info(student.device)[0]
        return free // 2
    return _CPU_BYTES


def _guess_bytes(student: Student) -> int:
    config = student.model.config.get_text_config()
    return 2 * int(config.num_hidden_layers) * int(config.hidden_size) * student.dtype.itemsize


def _try_cache(student: Student) -> int:
    """Bytes of a token's keys and values. Raises UnsupportedAttention where what the cache gives is
    not what the model computes."""
    config = student.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"}:
        raise UnsupportedAttention(f"layers of {', '.join(sorted(kinds))}")
    tolerance = 1e-3 if student.dtype == torch.float32 else 5e-2
    for draw in probe_tokens(config.vocab_size):
        found = _compare_cache(student, draw)
        if found.apart <= tolerance:
            return found.bytes_per_token
    raise UnsupportedAttention(f"hidden states are off by {found.apart:.2g}")


class _Compared(NamedTuple):
    apart: float
    """How far hidden states are from the model's own, as a part of these."""
    bytes_per_token: int


def _compare_cache(student: Student, ids: list[int]) -> _Compared:
    """Go on with three rows by the cache, two of them after one prompt, and by the model alone.
    Both prompts begin alike."""
    cache = KVCache(student)
    _, keys_values = cache.prefill([ids[:6], ids[:4]], least_shared=1)
    cache.add_rows(keys_values[:, 0], 6, 2)
    cache.add_rows(keys_values[:, 1], 4, 1)
    for step in range(3):
        order = [ids[6:9] if row.prefix else ids[4:7] for row in cache.rows]
        ours = cache.advance([tokens[step] for tokens in order])
    expected = [ids[:9] if row.prefix else ids[:7] for row in cache.rows]
    apart = 0.0
    for row, whole in zip(ours, expected, strict=True):
        plain = student.hidden_states(torch.tensor([whole], device=student.device))[0, -1]
        apart = max(apart, float((row - plain).float().norm() / plain.float().norm()))
    num_bytes = keys_values[:, 0, :, 0].numel() * keys_values.element_size()
    return _Compared(apart, num_bytes)
