"""What comes from elsewhere: a benchmark's data from the hub, MT-Bench's files from their home."""

import json
import os
import subprocess
import sys

import pytest
import tiny_run
from aiohttp import web
from echo_server import in_thread
from hub_files import SOURCE
from local_hub import LocalHub

from feldspar.config import MTBenchConfig
from feldspar.errors import RecipeError
from feldspar.evaluate.mt_bench import files
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
from feldspar.serve import listening

NOBODY = "http://127.0.0.1:9"
PUBLISHED = SOURCE / "mt_bench"
needs_data = pytest.mark.skipif(
    not SOURCE.is_dir(), reason="benchmark data lies in shared/, for development"
)


def home_of(served, asked):
    """FastChat's home, as far as it goes: some files under a commit."""

    async def get(http):
        asked.append(http.path)
        content = served.get(http.match_info["place"])
        return web.Response(status=404) if content is None else web.Response(body=content)

    app = web.Application()
    app.router.add_get(f"/v1/{files.COMMIT}/fastchat/llm_judge/data/{{place:.+}}", get)
    return in_thread(listening(app))


@needs_data
def test_mt_bench_is_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path))
    served = {
        place: (PUBLISHED / name).read_bytes() for name, (place, _) in files.PUBLISHED.items()
    }
    asked = []
    with home_of(served, asked) as url:
        config = MTBenchConfig(fetch=True, home=url)
        bench = read_mt_bench(find_mt_bench(config))
        assert len(asked) == 3
        assert bench == read_mt_bench(find_mt_bench(MTBenchConfig(data=str(PUBLISHED))))
    # Nobody is there any more, and nobody is asked.
    assert read_mt_bench(find_mt_bench(config)) == bench
    assert sum(len(question.turns) for question in bench.questions) == 160


def test_what_is_not_the_published_file_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path))
    with (
        home_of({"mt_bench/question.jsonl": b"{}\n"}, []) as url,
        pytest.raises(RecipeError, match=r"question.jsonl: not the published file; MT-Bench"),
    ):
        find_mt_bench(MTBenchConfig(fetch=True, home=url))
    assert not list(tmp_path.rglob("question.jsonl*"))


@pytest.mark.timeout(5, func_only=True)
def test_where_mt_bench_cannot_be_fetched_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path))
    with pytest.raises(
        RecipeError, match=r"cannot be fetched \(.*refused.*point .*data at"
    ) as said:
        find_mt_bench(MTBenchConfig(fetch=True, home=NOBODY))
    assert "\n" not in str(said.value)


CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train.jsonl
  - split: test
    path: main/test.jsonl
---
"""
LOAD = """
import json, signal, sys
from feldspar.config import BenchmarkConfig
from feldspar.errors import FeldsparError
from feldspar.evaluate.benchmarks.tasks import check_data, load_harness, load_task
load_harness()
told = {}
for name in sys.argv[1:]:
    config = BenchmarkConfig(task=name)
    signal.alarm(15)
    try:
        check_data(config)
        told[name] = list(load_task(name, config).test_docs())
    except FeldsparError as error:
        told[name] = str(error)
    signal.alarm(0)
print(json.dumps(told))
"""


def load(endpoint, home, *tasks):
    """Tasks without `data`, in a process of its own: the hub's address is read at import."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, *tasks],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tiny_run.ROOT,
    )
    return json.loads(done.stdout.splitlines()[-1])


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_data_come_from_the_hub_once_and_without_it_one_line_says_what_to_do(tmp_path):
    pytest.importorskip("lm_eval", reason="benchmarks need the extra `eval`")
    rows = {
        split: (SOURCE / "gsm8k" / f"{split}.jsonl").read_bytes().splitlines(keepends=True)[:8]
        for split in ("train", "test")
    }
    served = {f"main/{split}.jsonl": b"".join(lines) for split, lines in rows.items()}
    hub = LocalHub("openai/gsm8k", {"README.md": CARD.encode()} | served)
    with in_thread(listening(hub.app())) as url:
        found = load(url.removesuffix("/v1"), tmp_path, "gsm8k")["gsm8k"]
    assert found == [json.loads(line) for line in rows["test"]]
    assert any(asked.endswith("main/test.jsonl") for asked in hub.asked)
    # The hub is gone: what it gave is there, and what it did not give is one line.
    told = load(NOBODY, tmp_path, "gsm8k", "arc_challenge")
    assert told["gsm8k"] == found
    assert "arc_challenge': its data cannot be had from the hub" in told["arc_challenge"]
    assert "name a folder of local files as `data`" in told["arc_challenge"]
    assert "\n" not in told["arc_challenge"]
