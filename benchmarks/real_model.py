"""A real model of 135M parameters on a CPU: answers, samples and memory, beside peers.

    python benchmarks/real_model.py answers MODEL --gguf LIKE.gguf --peers PYTHON [--vllm BIN]
    python benchmarks/real_model.py sample MODEL
    python benchmarks/real_model.py memory
    python benchmarks/training.py --sizes 135M --dtypes bfloat16     (training, beside TRL)

MODEL is the folder of SmolLM2-135M-Instruct in Hugging Face format, LIKE.gguf a GGUF of the same
model, whose metadata are taken for one in bfloat16. PYTHON is that of a virtual environment with
`xllamacpp` (llama.cpp's server); BIN a `vllm`. A peer that is not installed is left out, with the
reason. All compute in bfloat16 on the same prompts, greedily, one after another in each round.
CPU seconds stand beside the clock's: on a machine that others use, they are what can be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
import torch
from safetensors.torch import load_file
from training import matmul_peak, processor
from transformers import AutoModelForCausalLM

from feldspar.config import StudentConfig
from feldspar.records import Message
from feldspar.student.inference.sample import sample_answers
from feldspar.student.inference.token_sampler import sample_tokens
from feldspar.student.lm_head import Head, cross_entropy, score_targets
from feldspar.student.model import Student, load_to_answer

PORT = 18765
LLAMA_SERVER = """
import sys, time, xllamacpp
model, port, slots, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.hostnames, params.port = ["127.0.0.1"], port
params.n_parallel, params.n_ctx = slots, 512 * slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.n_batch = params.n_ubatch = 2048
server = xllamacpp.Server(params)
print("ready", flush=True)
time.sleep(1e6)
"""
WORDS = ("river", "copper", "seven", "ladder", "winter", "orange", "market", "violin", "planet")


class Spent(NamedTuple):
    """What a way of answering took."""

    seconds: float
    cpu_seconds: float
    num_tokens: int

    def line(self, name: str, **more: object) -> str:
        figures = {
            "way": name,
            "tokens": self.num_tokens,
            "wall_s": round(self.seconds, 2),
            "cpu_s": round(self.cpu_seconds, 2),
            "tokens_per_s": round(self.num_tokens / self.seconds, 1),
            "tokens_per_cpu_s": round(self.num_tokens / self.cpu_seconds, 1),
        }
        return json.dumps(figures | more)


def questions(num: int) -> list[str]:
    """Short questions of an exam's length, no two alike."""
    rng = random.Random(1)
    asked = []
    for number in range(num):
        first, second = rng.sample(WORDS, 2)
        asked.append(
            [
                f"What is {rng.randrange(100)} plus {rng.randrange(100)}?",
                f"Write one sentence with the words {first} and {second}.",
                f"Which comes first in the alphabet, {first} or {second}? Answer with one word.",
                f"Spell {first} backwards, then name {rng.randrange(2, 5)} things like it.",
            ][number % 4]
        )
    return asked


class Products(NamedTuple):
    """Weights that a token is multiplied with."""

    layers: int
    head: int

    def share(self, spent: Spent, num_prompt_tokens: int, peak: float) -> float:
        """Of the peak, FLOP/s: prompts pass through the layers, answers through the head as well.

        What rows of one length cost more, and attention, count as none: it is a lower bound.
        """
        num_tokens = num_prompt_tokens + spent.num_tokens
        flops = 2 * (self.layers * num_tokens + self.head * spent.num_tokens)
        return round(flops / spent.seconds / peak, 4)


def products_of(folder: str) -> Products:
    """Of a model whose head is its embedding."""
    sizes = {n: w.numel() for n, w in load_file(f"{folder}/model.safetensors").items()}
    head = sizes.pop("model.embed_tokens.weight")
    assert "lm_head.weight" not in sizes
    return Products(sum(sizes.values()), head)


def load(folder: str) -> Student:
    config = StudentConfig(base=folder, device="cpu", dtype="bfloat16", template="own")
    return load_to_answer(folder, config)


def ours(student: Student, asked: list[str], limit: int) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    drawn = sample_answers(
        student,
        [(Message(role="user", content=question),) for question in asked],
        keys=asked,
        max_new_tokens=limit,
        seed=0,
    )
    num_tokens = sum(answer.num_tokens for (answer,) in drawn)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu, num_tokens)


def write_gguf(folder: Path, like: Path, out: Path) -> None:
    """The folder's bfloat16 weights with the metadata of another GGUF of the same Llama."""
    import gguf

    reader = gguf.GGUFReader(like)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(out, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        of_array = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, of_array)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for name, tensor in weights.items():
        for layer, counted in heads.items():
            if f".{layer}." in name:
                # llama.cpp rotates neighbouring pairs, transformers halves.
                parts = tensor.view(config[counted], 2, -1, tensor.shape[1])
                tensor = parts.transpose(1, 2).reshape(tensor.shape)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        if tensor.ndim == 1:
            writer.add_tensor(target, tensor.float().numpy())
        else:
            raw = tensor.bfloat16().contiguous().view(torch.uint8).numpy()
            writer.add_tensor(target, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def serving(command: list[str], url: str, environment: dict[str, str]) -> Iterator[int]:
    """A server with its children, until it answers; gives its process id."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
        )
        try:
            asyncio.run(_answering(url, process))
            yield process.pid
        finally:
            os.killpg(process.pid, 15)
            process.wait()


async def _answering(url: str, process: subprocess.Popen[bytes]) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(900):
            assert process.poll() is None, "the server ended"
            try:
                async with session.get(f"{url}/health") as reply:
                    if reply.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise AssertionError("the server did not come up")


def cpu_of(group: int) -> float:
    """CPU seconds of all processes of a group."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def asked_of_server(url: str, prompts: list[str], limit: int, at_once: int) -> int:
    """Tokens of greedy answers through `/v1/completions`."""
    gate = asyncio.Semaphore(at_once)

    async def ask(session: aiohttp.ClientSession, prompt: str) -> int:
        body = {"model": "m", "prompt": prompt, "max_tokens": limit, "temperature": 0}
        async with gate, session.post(f"{url}/v1/completions", json=body) as reply:
            told = await reply.json()
        return int(told["usage"]["completion_tokens"])

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return sum(await asyncio.gather(*(ask(session, prompt) for prompt in prompts)))


def theirs(url: str, group: int, prompts: list[str], limit: int, at_once: int) -> Spent:
    asyncio.run(asked_of_server(url, prompts[:2], 2, 2))
    wall, cpu = time.perf_counter(), cpu_of(group)
    num_tokens = asyncio.run(asked_of_server(url, prompts, limit, at_once))
    return Spent(time.perf_counter() - wall, cpu_of(group) - cpu, num_tokens)


def answers(options: argparse.Namespace) -> None:
    """Exam answers: ours, and servers at every number of threads and slots that is given."""
    student = load(options.model)
    asked = questions(options.num)
    prompts = [student.template.render_prompt([Message(role="user", content=q)]) for q in asked]
    texts = [student.tokenizer.decode(ids) for ids in prompts]
    url = f"http://127.0.0.1:{PORT}"
    products = products_of(options.model)
    print(json.dumps({"prompts": len(asked), "prompt_tokens": sum(map(len, prompts))}))
    with tempfile.TemporaryDirectory() as here:
        gguf_path = Path(here) / "bf16.gguf"
        if options.peers and options.gguf:
            write_gguf(Path(options.model), Path(options.gguf), gguf_path)
        for number in range(options.rounds):
            for threads in options.threads:
                torch.set_num_threads(threads)
                peak = matmul_peak("bfloat16")
                found = ours(student, asked, options.limit)
                share = products.share(found, sum(map(len, prompts)), peak)
                more = {"round": number, "threads": threads}
                print(found.line("feldspar", **more, share_of_peak=share), flush=True)
            for threads in options.threads if gguf_path.exists() else ():
                for slots in options.slots:
                    command = [options.peers, "-c", LLAMA_SERVER, str(gguf_path), str(PORT)]
                    with serving([*command, str(slots), str(threads)], url, {}) as group:
                        found = theirs(url, group, texts, options.limit, slots)
                    more = {"round": number, "threads": threads, "slots": slots}
                    print(found.line("llama.cpp", **more), flush=True)
            if options.vllm:
                with serving(vllm_command(options), url, VLLM_ENVIRONMENT) as group:
                    found = theirs(url, group, texts, options.limit, 256)
                print(found.line("vllm", round=number), flush=True)
    for name, is_there in (("llama.cpp", options.peers and options.gguf), ("vllm", options.vllm)):
        if not is_there:
            print(json.dumps({"way": name, "left out": "not named on the command line"}))


VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}


def vllm_command(options: argparse.Namespace) -> list[str]:
    command = [options.vllm, "serve", options.model, "--host", "127.0.0.1", "--port", str(PORT)]
    command += ["--served-model-name", "m", "--max-model-len", "2048", "--dtype", "bfloat16"]
    return [*command, "--enforce-eager", "--generation-config", "vllm"]


def sample(options: argparse.Namespace) -> None:
    """Sixteen answers to a question at temperature 1, beside transformers' `generate`."""
    student = load(options.model)
    plain = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
    torch.set_num_threads(options.threads[0])
    asked = questions(options.num)
    products, peak = products_of(options.model), matmul_peak("bfloat16")
    prompts = [student.template.render_prompt([Message(role="user", content=q)]) for q in asked]
    num_prompt_tokens = sum(map(len, prompts))
    for number in range(options.rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        drawn = sample_answers(
            student,
            [(Message(role="user", content=question),) for question in asked],
            keys=asked,
            num_answers=16,
            temperature=1.0,
            max_new_tokens=options.limit,
            seed=number,
        )
        spent = time.perf_counter() - wall, time.process_time() - cpu
        tokens = sum(answer.num_tokens for of in drawn for answer in of)
        found = Spent(*spent, tokens)
        # A prompt is read once for its sixteen answers.
        share = products.share(found, num_prompt_tokens, peak)
        print(found.line("feldspar", round=number, share_of_peak=share), flush=True)
        wall, cpu, tokens = time.perf_counter(), time.process_time(), 0
        for question in asked[: max(1, len(asked) // 4)]:
            ids = student.template.render_prompt([Message(role="user", content=question)])
            output = plain.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=True,
                top_k=0,
                num_return_sequences=16,
                max_new_tokens=options.limit,
                eos_token_id=student.template.stop_id,
                pad_token_id=student.template.pad_id,
            )
            new = output[:, len(ids) :]
            ends = (new == student.template.stop_id).int().cumsum(1) > 1
            tokens += int((~ends).sum())
        spent = time.perf_counter() - wall, time.process_time() - cpu
        print(Spent(*spent, tokens).line("transformers generate", round=number), flush=True)


def memory(options: argparse.Namespace) -> None:
    """What heads of real vocabularies add at their peak, each in a process of its own."""
    for vocabulary, hidden, softcap in ((49152, 576, None), (262144, 640, 30.0)):
        for what in ("loss", "scores", "next tokens"):
            code = [sys.executable, __file__, "head", str(vocabulary), str(hidden), str(softcap)]
            told = subprocess.run([*code, what], capture_output=True, text=True, check=True)
            print(told.stdout.strip(), flush=True)


def head(options: argparse.Namespace) -> None:
    """The peak above weights and hidden states, of one use of a head in bfloat16."""
    torch.set_num_threads(1)
    num_rows = 256 if options.what == "next tokens" else 1024
    weight = torch.randn(options.vocabulary, options.hidden).bfloat16()
    hidden = torch.randn(num_rows, options.hidden).bfloat16()
    targets = torch.randint(0, options.vocabulary, (num_rows,))
    softcap = None if options.softcap == "None" else float(options.softcap)
    is_loss = options.what == "loss"
    made = Head(weight.requires_grad_(is_loss), None, 1.0, softcap)
    # Resets the peak (proc(5)): making the operands has its own.
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    if is_loss:
        cross_entropy(made, hidden.requires_grad_(), targets, 1.0).sum().backward()
    elif options.what == "scores":
        score_targets(made, hidden, targets)
    else:
        zeros = np.zeros(num_rows)
        with torch.inference_mode():
            for part in hidden.split(made.chunk_rows):
                sample_tokens(made.logits(part), zeros[: len(part)], zeros + 1, zeros)
    peak = _kilobytes("VmHWM") - before
    logits = 4 * num_rows * options.vocabulary / 1e6
    figures = {"vocabulary": options.vocabulary, "what": options.what, "rows": num_rows}
    figures |= {"added_MB": round(peak / 1e3), "all_logits_in_float32_MB": round(logits)}
    print(json.dumps(figures))


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description="A real model on a CPU, beside peers.")
    parts = parser.add_subparsers(required=True)
    for name, function in (("answers", answers), ("sample", sample)):
        part = parts.add_parser(name)
        part.set_defaults(function=function)
        part.add_argument("model")
        part.add_argument("--num", type=int, default=128, help="questions")
        part.add_argument("--limit", type=int, default=32, help="tokens of an answer")
        part.add_argument("--rounds", type=int, default=1)
        part.add_argument("--threads", type=int, nargs="+", default=[2])
        part.add_argument("--slots", type=int, nargs="+", default=[4, 16, 64])
        part.add_argument("--peers", help="python of an environment with xllamacpp")
        part.add_argument("--gguf", help="a GGUF of the same model")
        part.add_argument("--vllm", help="the vllm program")
    parts.add_parser("memory").set_defaults(function=memory)
    part = parts.add_parser("head")
    part.set_defaults(function=head)
    part.add_argument("vocabulary", type=int)
    part.add_argument("hidden", type=int)
    part.add_argument("softcap")
    part.add_argument("what")
    options = parser.parse_args()
    if options.function in (answers, sample):
        peak = matmul_peak("bfloat16") / 1e9
        print(json.dumps({"machine": processor(), "bfloat16_peak_gflops": round(peak)}), flush=True)
    options.function(options)


if __name__ == "__main__":
    main()
