"""The un-merged LoRA adapter of a result, as peft loads it onto the base by id and revision.

Checkpoints are merged phase by phase, so the adapter is found again: what changed in a linear layer
is a sum of a few products of low rank, which its singular values give exactly, up to rounding.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from feldspar.errors import RunError
from feldspar.publish.base_facts import hub_id_of
from feldspar.publish.chain import Chain
from feldspar.runs import read_recipe_of
from feldspar.student.hub import HubName, commit_of, hub_name, pinned
from feldspar.student.model import find_model, read_model

log = logging.getLogger(__name__)

FOLDER = "adapter"
MAX_RANK = 512
RESIDUAL = 1e-3
"""Norm of what an adapter leaves out of a layer's change, over that of the change: merging in
float32 has rounded about as much."""
LARGEST_DIFFERENCE = 0.02
"""Of a logit on the trial text."""
_TRIAL = "Seven is a number between 6 and 8."


class LowRank(NamedTuple):
    """A change of a layer as `up @ down`."""

    down: Tensor
    """[rank, in]."""
    up: Tensor
    """[out, rank]."""


def write_adapter(chain: Chain, result: Path, folder: Path) -> int:
    """Write the adapter of a result to the new `folder`; gives its rank.

    Raises RunError where the run trained more than linear layers of low rank, or where the base's
    id on the hub is not known.
    """
    import peft

    recipe = read_recipe_of(chain.runs[-1])
    if recipe.student.lora is None:
        raise RunError(
            f"{chain.runs[-1]}: no [student.lora]: all weights were trained, so there is no adapter"
        )
    base_path = find_model(pinned(chain.base, chain.runs[0]))
    name = base_of_adapter(chain, base_path, recipe.publish.base_model)
    base, after = read_model(str(base_path)).model, read_model(str(result))
    changes = changed_layers(base, after.model)
    rank = max(change.down.shape[0] for change in changes.values())
    folder.mkdir()
    peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted({layer.rpartition(".")[2] for layer in changes}),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name.id,
        revision=name.revision,
        inference_mode=True,
    ).save_pretrained(folder)
    save_file(_named(changes, rank), folder / "adapter_model.safetensors")
    after.tokenizer.save_pretrained(folder)
    _check(base, after, folder)
    return rank


def base_of_adapter(chain: Chain, base_path: Path, stated: str) -> HubName:
    """By which id and revision peft finds the base. Raises RunError where the id is not known."""
    name = hub_name(stated) or hub_name(hub_id_of(chain.base))
    if name is None:
        raise RunError(
            f"{chain.base}: its id on the hub is not known, by which an adapter finds its base; "
            'set publish.base_model = "OWNER/NAME@COMMIT"'
        )
    found = HubName(name.id, name.revision or commit_of(base_path))
    if found.revision is None:
        log.warning(
            "the adapter's base %s is not pinned to a commit: "
            'publish.base_model = "OWNER/NAME@COMMIT" does that', found.id,
        )  # fmt: skip
    return found


def changed_layers(base: Any, after: Any) -> dict[str, LowRank]:
    """What changed in each linear layer, by name. Raises RunError where more than that changed."""
    before = dict(base.named_parameters())
    layers = {f"{n}.weight": n for n, m in after.named_modules() if isinstance(m, torch.nn.Linear)}
    found: dict[str, LowRank] = {}
    for name, weight in after.named_parameters():
        old = before.get(name)
        if old is not None and old.shape == weight.shape and torch.equal(old, weight):
            continue
        if old is None or old.shape != weight.shape or name not in layers:
            raise RunError(
                f"{name} was trained too, as the tokens of the lab template are, so an adapter "
                'alone is not the result; publish it merged, or train with template = "own"'
            )
        found[layers[name]] = low_rank((weight - old).detach(), name)
    if not found:
        raise RunError("no linear layer was changed, so there is no adapter")
    return found


def low_rank(change: Tensor, name: str) -> LowRank:
    """[out, in] as two factors of the least rank that leaves nothing but rounding. Raises RunError
    where that is over MAX_RANK."""
    most = min(*change.shape, MAX_RANK)
    if min(change.shape) <= 2 * MAX_RANK:
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(change, q=most, niter=4)
        vh = v.T
    total = change.square().sum()
    left = (total - s.square().cumsum(0)).clamp(min=0).sqrt()
    enough = (left <= RESIDUAL * total.sqrt()).nonzero()
    rank = int(enough[0]) + 1 if len(enough) else most + 1
    if rank > most or rank >= min(change.shape):
        raise RunError(f"{name}: its change is of no low rank, so there is no adapter")
    root = s[:rank].sqrt()
    return LowRank((root[:, None] * vh[:rank]).contiguous(), (u[:, :rank] * root).contiguous())


def _named(changes: dict[str, LowRank], rank: int) -> dict[str, Tensor]:
    """Tensors as peft names them, all of one rank."""
    tensors = {}
    for layer, (down, up) in changes.items():
        missing = rank - down.shape[0]
        pad = torch.nn.functional.pad
        tensors[f"base_model.model.{layer}.lora_A.weight"] = pad(down, (0, 0, 0, missing))
        tensors[f"base_model.model.{layer}.lora_B.weight"] = pad(up, (0, missing))
    return tensors


def _check(base: Any, after: Any, folder: Path) -> None:
    """Raise RunError where base and adapter together are not the result."""
    import peft

    ids = after.tokenizer(_TRIAL, return_tensors="pt")["input_ids"]
    with torch.no_grad(), warnings.catch_warnings():
        # peft asks transformers for a property by a name that it gives up.
        warnings.simplefilter("ignore", FutureWarning)
        expected = after.model(ids).logits
        found = peft.PeftModel.from_pretrained(base, folder)(ids).logits
    difference = float((expected - found).abs().max())
    if difference > LARGEST_DIFFERENCE:
        raise RunError(
            f"{folder}: with its adapter the base's logits are {difference:.3f} from the result's; "
            "not published"
        )
