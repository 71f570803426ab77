"""Low-rank adaptation (Hu et al. 2021) through peft, in the same loop as full training.

Only what is added to the weights is trained, and of embeddings and head the rows of the template's
own tokens. A checkpoint is written merged: plain transformers loads it, without peft.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from feldspar.config import LoraConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.student.merged_weights import is_adapted
from feldspar.student.model import Student, load_student
from feldspar.student.template.tokens import LAB
from feldspar.student.training.resume_state import held_rows, local_part


def load_to_train(path: str, config: StudentConfig, *, seed: int) -> Student:
    """`load_student`, with low-rank weights where the recipe asks for them."""
    return add_lora(load_student(path, config), config.lora, seed=seed)


def add_lora(student: Student, config: LoraConfig | None, *, seed: int) -> Student:
    """Freeze the student and add low-rank weights to its linear layers; None: change nothing.

    Raises TrainingError where peft is missing or `target_modules` fit nothing.
    """
    if config is None:
        return student
    try:
        import peft
    except ImportError:
        raise TrainingError("student.lora needs peft: pip install 'feldspar[lora]'") from None
    targets = config.target_modules
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    model = student.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(settings, model)
        except ValueError as error:
            reason = str(error).strip().split("\n")[0]
            raise TrainingError(f"student.lora.target_modules: {reason}") from error
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(is_adapted(layer) for layer in ends):
        raise TrainingError("student.lora.target_modules name embeddings or head; leave them out")
    rows = _template_rows(student)
    for layer in ends:
        layer.weight.requires_grad_(len(rows) > 0)
    model.eval()
    return replace(student, trained_rows=rows)


def keep_rows(student: Student) -> None:
    """Take out the gradient of rows of embeddings and head that are frozen."""
    if student.trained_rows is None:
        return
    model = student.model
    ends = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for weight in {id(w): w for w in ends}.values():
        if weight.grad is not None:
            held = held_rows(weight)
            rows = student.trained_rows - held.start
            rows = rows[(rows >= 0) & (rows < held.num)]
            gradient = local_part(weight.grad)
            kept = gradient[rows]
            gradient.zero_()
            gradient[rows] = kept


def _template_rows(student: Student) -> Tensor:
    """Ids of the tokens that the lab template brings: a base's own template brings none."""
    if student.template.kind != "lab":
        return torch.empty(0, dtype=torch.int64, device=student.device)
    ids = student.tokenizer.convert_tokens_to_ids(list(LAB.trained))
    return torch.tensor(ids, device=student.device)
