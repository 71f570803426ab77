"""Forward and backward of one micro-batch, in the dtype of the computation.

Weights and their gradients are float32 always. Below float32 the layers run on a copy of the
weights in that dtype (*low* weights), made anew once a step; what a micro-batch gives as gradient
is added to the float32 weights' own at once, so that sums over micro-batches are not rounded.

Shapes: B rows, T tokens, N trained tokens, S rows of a pack, H hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feldspar.errors import TrainingError
from feldspar.student.attention import NAME, Boundaries, attending_by
from feldspar.student.layers import can_compile, layers_run, untraced
from feldspar.student.lm_head import Head, cross_entropy, head_of, target_log_probs
from feldspar.student.model import Student
from feldspar.student.short_rows import LONGEST
from feldspar.student.token_rows import Batch, collate
from feldspar.student.training.packing import Packed, pack, packed_batches
from feldspar.student.training.process_group import (
    SINGLE_PROCESS,
    Cutter,
    MicroBatch,
    ProcessGroup,
)
from feldspar.student.training.schedule import micro_batches
from feldspar.tokens.arrays import TokenRow

_CPU_TOKENS = 4096
"""On a CPU more at once only leaves its caches."""
_WARM_UP_TOKENS = 512
"""In each of two rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchTensors:
    """Token rows on the device, with the positions that predict a trained token."""

    ids_BT: Tensor
    """Packed rows are one row of tokens: B is 1."""
    model_inputs: dict[str, Any]
    """What else the model is given: positions and boundaries of packed rows."""
    positions_N: Tensor
    """Of what predicts a trained token, in the flattened [B * T] positions."""
    targets_N: Tensor
    rows_N: NDArray[np.int64]
    """Which row each trained token is of."""
    num_rows: int
    num_tokens: int
    """Without padding."""


class ForwardPass:
    """A student's weights, ready to give losses with gradients.

    `is_sharded`: several processes hold the weights, and layers are cast as they are gathered.
    `checkpoint_activations`: activations are computed again for the backward pass.
    `compiled`: layers run compiled, as they do where the student asks for it.
    """

    def __init__(
        self,
        student: Student,
        *,
        packing: bool = True,
        is_sharded: bool = False,
        checkpoint_activations: bool = False,
        compiled: bool = False,
    ) -> None:
        self.student = student
        self.packing = packing and student.device.type in ("cpu", "cuda")
        self.model: Any = student.model
        self._trained_head_VH: Tensor | None = None
        self._low_and_weights: list[tuple[Tensor, Tensor]] = []
        self._has_sparse_lookup = student.device.type == "cpu" and not is_sharded
        if student.dtype != torch.float32 and not is_sharded:
            self.model = self._copy_in(student.dtype)
        self.checkpoint_activations = checkpoint_activations
        self._is_compiled = (compiled or student.compile is True) and can_compile()
        self._attention = untraced(NAME) if self._is_compiled else NAME

    def warm_up(self, group: ProcessGroup = SINGLE_PROCESS) -> None:
        """Compile, if layers are to be compiled: before the first micro-batch, and by one that is
        always the same, so that a run that goes on does so by the same code."""
        if not self._is_compiled:
            return
        config = self.student.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None) or _WARM_UP_TOKENS
        ids = np.arange(min(longest, _WARM_UP_TOKENS) + 1, dtype=np.int32) % config.vocab_size
        row = TokenRow(ids, np.ones(len(ids), dtype=np.bool_))
        micro = MicroBatch(np.arange(2), is_last=True)
        with self.ready():
            losses = partial(self.losses, self.to_tensors([row, row]), 0.0)
            torch.autograd.backward(group.compute(micro, losses).sum())
        for weight in self.student.model.parameters():
            weight.grad = None

    def refresh(self) -> None:
        """Copy what the optimizer did to the float32 weights into the low ones."""
        if self._low_and_weights:
            copies, weights = zip(*self._low_and_weights, strict=True)
            with torch.no_grad():
                torch._foreach_copy_(list(copies), list(weights))

    def cutter(self, token_budget: int) -> Cutter:
        """How a step's rows are cut into what is computed at once."""
        if not self.packing:
            return partial(micro_batches, token_budget=token_budget)
        if self.student.device.type == "cpu":
            token_budget = min(token_budget, _CPU_TOKENS)
        return partial(packed_batches, token_budget=token_budget)

    def to_tensors(self, rows: Sequence[TokenRow]) -> MicroBatchTensors:
        """Put rows on the device, packed or side by side."""
        ids, masks = [r.ids for r in rows], [r.mask for r in rows]
        device = self.student.device
        batch: Batch | Packed
        if self.packing:
            batch = packed = pack(ids, masks, longest_sharing=self.longest_sharing(ids))
            ids_BT = packed.ids_T[None]
            model_inputs = _packed_inputs(packed, device)
        else:
            batch = padded = collate(ids, masks, self.student.template.pad_id)
            ids_BT, model_inputs = padded.ids_BT, {}
        return MicroBatchTensors(
            ids_BT=torch.from_numpy(ids_BT).to(device),
            model_inputs=model_inputs,
            positions_N=torch.from_numpy(batch.positions_N).to(device),
            targets_N=torch.from_numpy(batch.targets_N).to(device),
            rows_N=batch.rows_N,
            num_rows=len(ids),
            num_tokens=sum(len(r) - 1 for r in ids),
        )

    def longest_sharing(self, ids: Sequence[NDArray[np.int32]]) -> int:
        """Tokens of a row up to which it may share its beginning with others; 0 where these rows
        are not computed in groups (see attention.py)."""
        student = self.student
        window = getattr(student.model.config.get_text_config(), "sliding_window", None)
        longest = max(len(row) for row in ids) - 1
        is_grouped = student.device.type == "cpu" and student.dtype != torch.float32
        return LONGEST if is_grouped and (not window or longest <= window) else 0

    @property
    def head(self) -> Head:
        """Of the weights that compute, with those that are trained."""
        return head_of(self.model)._replace(trained_VH=self._trained_head_VH)

    def losses(self, tensors: MicroBatchTensors, scale: float) -> Tensor:
        """Losses [N] in nats; `backward` on their sum gives the gradient of `scale * sum`."""
        hidden_NH = self.hidden(tensors)
        return cross_entropy(self.head, hidden_NH, tensors.targets_N, scale)

    def log_probs(self, tensors: MicroBatchTensors) -> Tensor:
        """Log-probabilities [N] of the trained tokens, in nats, with their gradient."""
        return target_log_probs(head_of(self.model), self.hidden(tensors), tensors.targets_N)

    def row_log_probs(self, tensors: MicroBatchTensors) -> Tensor:
        """Sums [B] of the log-probabilities of each row's trained tokens, with their gradient."""
        log_probs_N = self.log_probs(tensors)
        sums_B = log_probs_N.new_zeros(tensors.num_rows)
        rows_N = torch.from_numpy(tensors.rows_N).to(log_probs_N.device)
        return sums_B.index_add(0, rows_N, log_probs_N)

    def hidden(self, tensors: MicroBatchTensors) -> Tensor:
        """[N, H]: only where a trained token is predicted, so that the head computes no others."""
        hidden_TH = self.states(tensors.ids_BT, **tensors.model_inputs).flatten(0, 1)
        return hidden_TH.index_select(0, tensors.positions_N).to(self.student.dtype)

    def states(self, ids_BT: Tensor, **model_inputs: Any) -> Tensor:
        """Last hidden states [B, T, H]."""
        # Looked up in the float32 weights, not in the low copy: a token's gradient is a sum over
        # all its places, which a low dtype would round at each of them.
        embedded = self._look_up(ids_BT).to(self.student.dtype)
        hidden: Tensor = self.model.base_model(
            inputs_embeds=embedded, use_cache=False, **model_inputs
        ).last_hidden_state
        return hidden

    def _look_up(self, ids_BT: Tensor) -> Any:
        """Embeddings [B, T, H]. On a CPU their gradient has the rows that were looked up and no
        others; what it is added to has all, and the sum the same bits."""
        layer = self.student.model.get_input_embeddings()
        weight = layer.weight
        if not (self._has_sparse_lookup and weight.requires_grad and torch.is_grad_enabled()):
            return layer(ids_BT)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        layer.sparse = True
        try:
            return layer(ids_BT)
        finally:
            layer.sparse = False

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Hold the model to its way of computing inside the block, backward passes included."""
        with (
            attending_by(self.model, self._attention) if self.packing else nullcontext(),
            layers_run(
                self.model, compiled=self._is_compiled, checkpointed=self.checkpoint_activations
            ),
        ):
            yield

    def _copy_in(self, dtype: torch.dtype) -> Any:
        """The model with its weights in `dtype`; buffers (rotary frequencies) stay as they are."""
        model = self.student.model
        # deepcopy takes what this maps an object's id to for its copy: here, low weights.
        copies: dict[int, Any] = {}
        embedding = model.get_input_embeddings().weight
        head = model.get_output_embeddings().weight
        for weight in model.parameters():
            # Embeddings are read in float32 (see `states`), unless the head is the same tensor.
            if weight is embedding and weight is not head:
                copies[id(weight)] = weight
                continue
            low = nn.Parameter(weight.detach().to(dtype), requires_grad=weight.requires_grad)
            copies[id(weight)] = low
            if weight.requires_grad:
                self._low_and_weights.append((low, weight))
                if weight is head:
                    self._trained_head_VH = weight
                hook = _AddGradient(weight)
                low.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        return copy.deepcopy(model, copies)


class _AddGradient:
    """Adds a low weight's gradient to that of the float32 weight it is a copy of."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, low: Tensor) -> None:
        if low.grad is None:
            # A head's, which was added in the forward pass.
            return
        if self._weight.grad is None:
            self._weight.grad = low.grad.to(self._weight.dtype)
        else:
            self._weight.grad.add_(low.grad)
        # Freed at once: no more than one layer's low gradients exist at a time.
        low.grad = None


def _packed_inputs(packed: Packed, device: torch.device) -> dict[str, Any]:
    """Positions [1, T] that start again with each row, and the ends [S + 1] of rows."""
    starts = np.concatenate([[0], np.cumsum(packed.lengths_S)]).astype(np.int32)
    return {
        "position_ids": torch.from_numpy(packed.places_T).to(device)[None],
        "boundaries": Boundaries(
            tuple(packed.lengths_S.tolist()),
            torch.from_numpy(starts).to(device),
            packed.num_shared,
            tuple(packed.shares_S.tolist()),
        ),
    }


def check_packing(student: Student) -> None:
    """Raise TrainingError where packed rows are not computed as each by itself.

    Three rows that begin alike are packed, compared with separate forward passes through the
    model's own attention, and packed again with other tokens behind the beginning of the first,
    which the others must not see.
    """
    forward = ForwardPass(replace(student, compile=False), is_sharded=True)
    if not forward.packing:
        return
    rng = np.random.default_rng(1)
    vocabulary = student.model.config.get_text_config().vocab_size
    begin = rng.integers(0, vocabulary, 6)
    rests = [rng.integers(0, vocabulary, n) for n in (6, 3, 9)]
    changed_rests = [(rests[0] + 7) % vocabulary, *rests[1:]]
    batches = [
        [np.concatenate([begin, rest]).astype(np.int32) for rest in of_rows]
        for of_rows in (rests, changed_rests)
    ]
    masks = [np.ones(len(row), dtype=np.bool_) for row in batches[0]]
    packs = [pack(r, masks, longest_sharing=forward.longest_sharing(r)) for r in batches]
    with torch.no_grad(), student.computing():
        with forward.ready():
            together, changed = (
                forward.states(
                    torch.from_numpy(p.ids_T).to(student.device)[None],
                    **_packed_inputs(p, student.device),
                )[0, torch.from_numpy(p.positions_N).to(student.device)]
                for p in packs
            )
        rows = [torch.from_numpy(row[:-1]).to(student.device)[None] for row in batches[0]]
        alone = torch.cat([forward.states(row.long())[0] for row in rows])
    first = len(rows[0][0])
    # What leaks shows as a change; what is merely rounded otherwise only as a distance.
    leaked = _distance(changed[first:], together[first:])
    apart = _distance(together, alone)
    if leaked > 1e-6 or apart > (1e-4 if student.dtype == torch.float32 else 5e-2):
        raise TrainingError(
            f"{type(student.model).__name__} does not keep packed rows apart (a change of one "
            f"moves others by {leaked:.1e}; packed and separate differ by {apart:.1e}); set "
            "train.packing = false"
        )


def check_embeddings(student: Student) -> None:
    """Raise TrainingError where a model reads more of its tokens than their embeddings."""
    model = student.model
    ids = torch.arange(1, 9, device=student.device)[None]
    ids = ids % model.config.get_text_config().vocab_size
    with torch.no_grad():
        whole = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        embedded = model.get_input_embeddings()(ids)
        of_these = model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    apart = _distance(of_these, whole)
    # One and the same computation, unless there is more to it.
    if apart > 1e-3:
        raise TrainingError(
            f"{type(model).__name__} reads its tokens beside their embeddings (states differ by "
            f"{apart:.1e}), which training does not hand on; take another family"
        )


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
