"""Forward and backward of one micro-batch, in the dtype of the computation.

Below float32 the layers run on a copy of the weights in that dtype, made anew once a step; what a
micro-batch gives as gradient is added to the float32 weights' own at once.

Shapes: B rows, T tokens, N trained tokens, H hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feldspar.errors import TrainingError
from feldspar.student.attention import NAME, Boundaries
from feldspar.student.batch import collate
from feldspar.student.head import cross_entropy, head_of
from feldspar.student.model import Student
from feldspar.student.packing import Packed, pack, packed_batches
from feldspar.student.schedule import micro_batches

_CPU_TOKENS = 4096
"""On a CPU more at once only leaves its caches."""


class Row(Protocol):
    """Ids [T] and mask [T] of what is trained."""

    @property
    def ids(self) -> NDArray[np.int32]: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...


class Losses:
    """Losses [N] of a micro-batch's trained tokens, and which of its rows each is of."""

    def __init__(self, losses_N: Tensor, rows_N: NDArray[np.int64]) -> None:
        self.losses_N, self.rows_N = losses_N, rows_N


class Compute:
    """A student's weights, ready to give losses with gradients."""

    def __init__(self, student: Student, *, packing: bool = True) -> None:
        self.student = student
        self.packing = packing and student.device.type in ("cpu", "cuda")
        self.model: Any = student.model
        self._pairs: list[tuple[Tensor, Tensor]] = []
        if student.dtype != torch.float32:
            self.model = self._copy_in(student.dtype)

    def refresh(self) -> None:
        """Take over what the optimizer did to the float32 weights."""
        if self._pairs:
            copies, weights = zip(*self._pairs, strict=True)
            with torch.no_grad():
                torch._foreach_copy_(list(copies), list(weights))

    def micro_batches(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], token_budget: int
    ) -> list[NDArray[np.int64]]:
        """Groups of a step's rows that are computed at once."""
        if not self.packing:
            return micro_batches(rows, lengths, token_budget)
        if self.student.device.type == "cpu":
            token_budget = min(token_budget, _CPU_TOKENS)
        return packed_batches(rows, lengths, token_budget)

    def losses(self, rows: Sequence[Row], scale: float) -> Losses:
        """Losses of rows; call `backward` on their sum for the gradient of `scale * sum`."""
        ids, masks = [r.ids for r in rows], [r.mask for r in rows]
        device = self.student.device
        if self.packing:
            packed = pack(ids, masks)
            hidden_TH = self._packed_states(packed)
            positions, targets, rows_N = packed.positions_N, packed.targets_N, packed.rows_N
        else:
            batch = collate(ids, masks, self.student.template.pad_id)
            hidden_TH = self._states(torch.from_numpy(batch.ids_BT).to(device)).flatten(0, 1)
            positions, targets, rows_N = batch.positions_N, batch.targets_N, batch.rows_N
        hidden_NH = hidden_TH.index_select(0, torch.from_numpy(positions).to(device))
        targets_N = torch.from_numpy(targets).to(device)
        return Losses(cross_entropy(head_of(self.model), hidden_NH, targets_N, scale), rows_N)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Hold the model to packed attention inside the block, backward passes included."""
        if not self.packing:
            yield
            return
        config = self.model.config
        before = config._attn_implementation
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = before

    def _states(self, ids_BT: Tensor, **more: Any) -> Tensor:
        # Looked up in the float32 weights: a token's gradient is a sum over all its places.
        embedded = self.student.model.get_input_embeddings()(ids_BT).to(self.student.dtype)
        hidden: Tensor = self.model.base_model(
            inputs_embeds=embedded, use_cache=False, **more
        ).last_hidden_state
        return hidden

    def _packed_states(self, packed: Packed) -> Tensor:
        device = self.student.device
        starts = np.concatenate([[0], np.cumsum(packed.lengths_S)]).astype(np.int32)
        boundaries = Boundaries(
            tuple(packed.lengths_S.tolist()), torch.from_numpy(starts).to(device)
        )
        return self._states(
            torch.from_numpy(packed.ids_T).to(device)[None],
            position_ids=torch.from_numpy(packed.places_T).to(device)[None],
            boundaries=boundaries,
        )[0]

    def _copy_in(self, dtype: torch.dtype) -> Any:
        """The model with its weights in `dtype`; buffers (rotary frequencies) stay as they are."""
        model = self.student.model
        copies: dict[int, Any] = {}
        embedding = model.get_input_embeddings().weight
        for weight in model.parameters():
            if weight is embedding and weight is not model.get_output_embeddings().weight:
                copies[id(weight)] = weight
                continue
            low = nn.Parameter(weight.detach().to(dtype), requires_grad=weight.requires_grad)
            copies[id(weight)] = low
            if weight.requires_grad:
                self._pairs.append((low, weight))
                low.register_post_accumulate_grad_hook(_Hand(weight))  # type: ignore[no-untyped-call]
        return copy.deepcopy(model, copies)


class _Hand:
    """Adds a copy's gradient to that of the weight it was made of."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, low: Tensor) -> None:
        assert low.grad is not None
        if self._weight.grad is None:
            self._weight.grad = low.grad.to(self._weight.dtype)
        else:
            self._weight.grad.add_(low.grad)
        low.grad = None


def check_packing(compute: Compute) -> None:
    """Raise TrainingError where packed rows are not computed as each by itself.

    Three rows are packed, compared with separate forward passes through the model's own attention,
    and packed again with other tokens in the first, which the others must not see.
    """
    if not compute.packing:
        return
    vocabulary = compute.model.config.get_text_config().vocab_size
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, vocabulary, n).astype(np.int32) for n in (12, 9, 15)]
    others = [(rows[0] + 7) % vocabulary, *rows[1:]]
    masks = [np.ones(len(r), dtype=np.bool_) for r in rows]
    with torch.no_grad():
        with compute.ready():
            together, changed = (compute._packed_states(pack(r, masks)) for r in (rows, others))
        device = compute.student.device
        alone = [
            compute._states(torch.from_numpy(r[:-1].astype(np.int64))[None].to(device))[0]
            for r in rows
        ]
    first = len(rows[0]) - 1
    exact = 1e-4 if compute.student.dtype == torch.float32 else 5e-2
    seen = _distance(changed[first:], together[first:])
    apart = _distance(together, torch.cat(alone))
    if seen > 1e-3 * exact or apart > exact:
        raise TrainingError(
            f"{type(compute.model).__name__}: packed rows see each other (a change of one moves "
            f"others by {seen:.1e}, and packed from separate is {apart:.1e}); set "
            "train.packing = false"
        )


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
