"""Steps of training with what rows begin with alike computed once, and with each row by itself.

    feldspar mix recipes/demo.toml                    # minutes: samples, base replay, phases
    python benchmarks/shared_beginning.py runs/demo
    python benchmarks/shared_beginning.py runs/demo --compile --rank 0 --batch 32

The rows of the run's first phase, drawn at random; both ways take the same rows in turn, in one
process. Prints tokens, seconds (medians) and their ratio, and how far the gradients of both lie
apart and from float32's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from feldspar.config import LoraConfig, StudentConfig
from feldspar.records import Conversation
from feldspar.runs import open_step, read_recipe_of, read_rows
from feldspar.student.model import compute_threads
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.forward import ForwardPass
from feldspar.student.training.lora import load_to_train


class Apart(ForwardPass):
    """Every row by itself."""

    def longest_sharing(self, ids: object) -> int:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rank", type=int, default=32, help="of small matrices; 0: all weights")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    recipe = read_recipe_of(args.run)
    lora = LoraConfig(rank=args.rank, alpha=2 * args.rank) if args.rank else None
    student = recipe.student.model_copy(update={"lora": lora, "compile": args.compile})
    steps = draw(rows_of(args.run, student), args.batch, args.steps)
    ways = {
        name: one_way(make, student) for name, make in (("once", ForwardPass), ("apart", Apart))
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, list[int]] = {name: [] for name in ways}
    distances = []
    with compute_threads(ways["once"].student):
        for forward in ways.values():
            forward.warm_up()
            computed(forward, steps[0])
        for rows in steps:
            gradients = {}
            for name, forward in ways.items():
                began = time.perf_counter()
                gradients[name], num = computed(forward, rows)
                seconds[name].append(time.perf_counter() - began)
                tokens[name].append(num)
            distances.append(apart(gradients["once"], gradients["apart"]))
    print("| way | tokens a step | seconds a step |")
    print("|---|---:|---:|")
    for name in ways:
        median = statistics.median(seconds[name])
        print(f"| {name} | {statistics.mean(tokens[name]):.0f} | {median:.3f} |")
    ratios = [b / a for a, b in zip(seconds["once"], seconds["apart"], strict=True)]
    print(f"\napart / once, paired: {statistics.median(ratios):.2f}")
    print(f"gradients apart: {statistics.median(distances):.1e}")
    print_exact(steps[:3], ways, student)


def rows_of(run: Path, student: StudentConfig) -> TokenRows:
    phases = open_step(run, "phases")
    if phases is None:
        raise SystemExit(f"{run} has no phases yet: feldspar mix its recipe")
    first = next(iter(phases))
    template = load_to_train(student.base, student, seed=1).template
    sources = [(s.name, read_rows(Path(s.path), Conversation)) for s in first.sources]
    return tokenise(template, sources, student.max_length)


def draw(rows: TokenRows, batch: int, num_steps: int) -> list[list[object]]:
    """Two of five rows are base replay, as in the phase."""
    rng = np.random.default_rng(1)
    places = rng.permutation(len(rows))
    weights = np.where(rows.source_of == 0, 0.6 / rows.num_rows[0], 0.4 / rows.num_rows[-1])
    drawn = rng.choice(places, (num_steps, batch), p=weights[places] / weights.sum())
    return [[rows.row(int(i)) for i in step] for step in drawn]


def one_way(make: type[ForwardPass], student: StudentConfig) -> ForwardPass:
    loaded = load_to_train(student.base, student, seed=1)
    loaded.model.train()
    return make(loaded, compiled=bool(student.compile))


def computed(forward: ForwardPass, rows: Sequence[object]) -> tuple[torch.Tensor, int]:
    """The gradient of the step's mean loss, and the tokens that were computed for it."""
    tensors = forward.to_tensors(rows)  # type: ignore[arg-type]
    with forward.ready():
        losses = forward.losses(tensors, 1 / len(tensors.targets_N))
        torch.autograd.backward(losses.sum())
    weights = [p for p in forward.student.model.parameters() if p.requires_grad]
    found = torch.cat([p.grad.flatten() for p in weights if p.grad is not None])
    for weight in weights:
        weight.grad = None
    return found, tensors.ids_BT.numel()


def print_exact(
    steps: Sequence[Sequence[object]], ways: dict[str, ForwardPass], student: StudentConfig
) -> None:
    exact = one_way(ForwardPass, student.model_copy(update={"dtype": "float32"}))
    for name, forward in ways.items():
        distances = [apart(computed(forward, s)[0], computed(exact, s)[0]) for s in steps]
        print(f"{name}, from float32: {statistics.median(distances):.1e}")


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


if __name__ == "__main__":
    main()
