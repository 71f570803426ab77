"""A published run in an environment without Feldspar: the same greedy text from plain transformers.

    python benchmarks/clean_environment.py runs/quickstart [--python OTHER/bin/python]

Publishes the run into a temporary folder, makes a fresh virtual environment with torch,
transformers, safetensors and tokenizers alone (those of constraints.txt; `--python` takes one that
is there), and compares its answers to the run's exam questions with those of `feldspar chat`.
Ends with 1 where any differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from feldspar.publish.directory import publish_run
from feldspar.runs import open_step
from feldspar.serve.chat import Conversationalist

NEEDED = ("torch", "transformers", "safetensors", "tokenizers")
NUM_QUESTIONS = 100
MAX_TOKENS = 60
PLAIN = """
import importlib.util, json, sys
from pathlib import Path
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert importlib.util.find_spec("feldspar") is None, "feldspar is installed here"
path, max_tokens = sys.argv[1], int(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path)
answers = []
for question in json.load(sys.stdin):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1]:]
    answers.append(tokenizer.decode(new, skip_special_tokens=True))
versions = {"python": sys.version.split()[0], "torch": torch.__version__,
            "transformers": transformers.__version__}
print(json.dumps({"answers": answers, "versions": versions}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--python", type=Path, help="of an environment without Feldspar")
    arguments = parser.parse_args()
    questions = [item.question for item in open_step(arguments.run, "leaf-exams") or ()]
    questions = list(dict.fromkeys(questions))[:NUM_QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "published"
        publish_run(arguments.run, published)
        python = arguments.python or make_environment(Path(folder) / "environment")
        plain = ask_plain(python, published, questions)
    partner = Conversationalist(arguments.run, MAX_TOKENS, temperature=0.0)
    num_same = 0
    for question, theirs in zip(questions, plain["answers"], strict=True):
        partner.forget()
        ours = partner.answer(question)
        num_same += ours.strip() == theirs.strip()
        if ours.strip() != theirs.strip():
            print(f"{question!r}\n  feldspar     {ours!r}\n  transformers {theirs!r}")
    print(f"{num_same} of {len(questions)} answers are the same; {plain['versions']}")
    return int(num_same < len(questions) or not questions)


def make_environment(folder: Path) -> Path:
    """Its interpreter."""
    venv.create(folder, with_pip=True)
    pins = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").split("\n")
    wanted = [pin for pin in pins if pin.partition("==")[0] in NEEDED]
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def ask_plain(python: Path, published: Path, questions: list[str]) -> dict:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [python, "-I", "-c", PLAIN, published, str(MAX_TOKENS)],
        input=json.dumps(questions),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
