"""MMLU 5-shot: items a second of Feldspar's model beside lm_eval's own Hugging Face one.

    python benchmarks/mmlu.py --data FOLDER [--subjects 6] [--items 50] [--threads 2]

FOLDER holds `dev.jsonl` and `test.jsonl` with `subject`, `question`, `choices` and `answer`. The
model is a random Llama of 60 M parameters with the tokenizer in `--tokenizer`. Both are given the
same requests, as lm_eval builds them, subject by subject, one after the other and in turn; every
log-likelihood must agree to 1e-3.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import resource
import tempfile
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.evaluate.benchmarks.student_lm import StudentLM
from feldspar.evaluate.benchmarks.tasks import find_tasks, harness_version, load_task


def main() -> None:
    arguments = read_arguments()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        num_parameters = save_model(Path(folder), arguments.tokenizer)
        ours = StudentLM(
            folder,
            StudentConfig(base=folder, device=arguments.device, dtype="float32"),
            chat_template=False,
        )
        theirs = HFLM(
            pretrained=folder,
            dtype="float32",
            device=arguments.device,
            batch_size=arguments.batch_size,
        )
        models = {"feldspar": ours, "lm_eval HFLM": theirs}
        config = BenchmarkConfig(task="mmlu", data=arguments.data, limit=arguments.items)
        names = find_tasks(config)
        step = max(1, len(names) // arguments.subjects)
        spent = dict.fromkeys(models, (0.0, 0.0))
        num_items, worst = 0, 0.0
        for number, name in enumerate(names[::step][: arguments.subjects]):
            requests = build_requests(name, config)
            num_items += len(requests) // 4
            order = list(models) if number % 2 == 0 else list(reversed(models))
            found = {}
            for which in order:
                found[which], wall, cpu = timed(models[which], requests)
                before = spent[which]
                spent[which] = (before[0] + wall, before[1] + cpu)
            pairs = zip(*found.values(), strict=True)
            worst = max(worst, *(abs(one[0] - other[0]) for one, other in pairs))
            show(name, num_items, spent, worst)
        show("all", num_items, spent, worst)
        print(
            f"{num_parameters / 1e6:.0f} M parameters, {arguments.threads} threads, batch "
            f"{arguments.batch_size} for HFLM, torch {torch.__version__}, lm_eval "
            f"{harness_version()}, {platform.processor() or platform.machine()}"
        )
        assert worst < 1e-3, worst


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True, help="A folder with tokenizer.json.")
    parser.add_argument("--subjects", type=int, default=57, help="Spread over all 57.")
    parser.add_argument("--items", type=int, default=None, help="Of each subject.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def save_model(folder: Path, tokenizer_path: str) -> int:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=4096,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def build_requests(name: str, config: BenchmarkConfig) -> list[Instance]:
    task = load_task(name, config)
    task.build_all_requests(limit=config.limit, rank=0, world_size=1)
    return list(task.instances)


def timed(model: object, requests: list[Instance]) -> tuple[list[tuple[float, bool]], float, float]:
    """Answers, wall and CPU seconds; encoding the prompts is in them."""
    began, cpu = time.perf_counter(), cpu_seconds()
    answers = model.loglikelihood(requests, disable_tqdm=True)  # type: ignore[attr-defined]
    return answers, time.perf_counter() - began, cpu_seconds() - cpu


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def show(name: str, num_items: int, spent: dict[str, tuple[float, float]], worst: float) -> None:
    figures = {
        which: {"items/s": round(num_items / wall, 2), "CPU ms/item": round(1e3 * cpu / num_items)}
        for which, (wall, cpu) in spent.items()
    }
    (wall, cpu), (their_wall, their_cpu) = spent.values()
    ratios = {"x wall": round(their_wall / wall, 2), "x CPU": round(their_cpu / cpu, 2)}
    print(json.dumps({"subject": name, "items": num_items} | figures | ratios | {"worst": worst}))


if __name__ == "__main__":
    main()
