"""How fast the studio's pages are on a large run, and what 50 browsers on a live run cost it.

    python benchmarks/synthetic_run.py runs/many --samples 100000
    python benchmarks/studio.py runs many

First paint and filters are measured in Chromium, from the click to the settled page. The live run
is a process of one busy core that reports its progress as runs do; 50 clients ask for its page
every two seconds, as browsers do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from playwright.sync_api import Page, sync_playwright

from feldspar.children import child_environment, module_command

CHROMIUM = "/usr/bin/chromium"
NUM_LOADS = 5
NUM_CLIENTS = 50
POLL_SECONDS = 2.0
FILTERS = (
    ("state", "kept"),
    ("reason", "judge: not faithful"),
    ("leaf", "knowledge/field_3/topic_13/leaf_53"),
    ("review", "open"),
)
BUSY = """
import sys, time
from pathlib import Path
from feldspar.config import Recipe
from feldspar.runs import Run
tree = {"name": "live", "taxonomy": {"path": "t"}, "student": {"base": "b"}}
with Run(Path(sys.argv[1]), Recipe.model_validate(tree)) as run:
    with run.progress.task("samples", 1e6, "samples") as task:
        while True:
            sum(range(20_000))
            task.advance(1, kept=1, calls=2, tokens=300)
"""
PAINT = """new Promise((resolve) => new PerformanceObserver((list) => {
  const paint = list.getEntriesByName("first-contentful-paint")[0];
  if (paint) resolve(paint.startTime);
}).observe({type: "paint", buffered: true}))"""
FILTER = """([name, value]) => new Promise((resolve) => {
  const field = document.querySelector(`form.filters [name="${name}"]`);
  const start = performance.now();
  const settled = () => resolve(performance.now() - start);
  document.addEventListener("htmx:afterSettle", settled, {once: true});
  field.value = value;
  field.dispatchEvent(new Event("change", {bubbles: true}));
})"""
TYPED = """(value) => new Promise((resolve) => {
  const field = document.querySelector("form.filters [name=words]");
  const start = performance.now();
  const settled = () => resolve(performance.now() - start);
  document.addEventListener("htmx:afterSettle", settled, {once: true});
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
})"""


def cpu_seconds(pid: int) -> float:
    """Of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pages(url: str, run: str) -> dict[str, list[float]]:
    """Milliseconds by what was done."""
    found: dict[str, list[float]] = {}
    root = url.partition("/?")[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for number in range(NUM_LOADS + 1):
            page = browser.new_context().new_page()
            page.set_default_timeout(120_000)
            page.goto(url)
            for name in ("verdict", "samples"):
                page.goto(f"{root}/runs/{run}/{name}")
                if number:
                    # The first load makes index and charts.
                    found.setdefault(f"first paint: {name}", []).append(page.evaluate(PAINT))
            if number:
                filters(page, f"{root}/runs/{run}/samples", found)
            page.context.close()
        browser.close()
    return found


def filters(page: Page, address: str, found: dict[str, list[float]]) -> None:
    for name, value in FILTERS:
        page.goto(address)
        taken = page.evaluate(FILTER, [name, value])
        found.setdefault(f"filter: {name}", []).append(taken)
    page.goto(address)
    taken = page.evaluate(TYPED, "stone12 lam")
    found.setdefault("filter: two words, typed (100 ms of it the wait)", []).append(taken)


async def watch(url: str, seconds: float) -> int:
    """50 clients on the live page; gives how many pages they got."""
    num_got = 0
    end = time.monotonic() + seconds
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        await (await session.get(url)).read()
        live = f"{url.partition('/?')[0]}/runs/live/live"

        async def client(number: int) -> None:
            nonlocal num_got
            await asyncio.sleep(number * POLL_SECONDS / NUM_CLIENTS)
            while time.monotonic() < end:
                async with session.get(live) as reply:
                    assert reply.status == 200, reply.status
                    await reply.read()
                num_got += 1
                await asyncio.sleep(POLL_SECONDS)

        await asyncio.gather(*(client(number) for number in range(NUM_CLIENTS)))
    return num_got


def main(runs: Path, run: str, seconds: float) -> None:
    environment = child_environment()
    command = [*module_command("feldspar.cli.main"), "studio", str(runs), "--port", "0", "--json"]
    command += ["--reviewer", "bench"]
    with tempfile.TemporaryDirectory() as folder:
        live_command = [sys.executable, "-c", BUSY, str(Path(folder) / "live")]
        link = runs / "live"
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as studio,
            subprocess.Popen(live_command, env=environment) as live,
        ):
            try:
                assert studio.stdout is not None
                url = json.loads(studio.stdout.readline())["url"]
                link.symlink_to(Path(folder) / "live", target_is_directory=True)
                time.sleep(5)
                before = cpu_seconds(studio.pid), cpu_seconds(live.pid)
                num_got = asyncio.run(watch(url, seconds))
                used = cpu_seconds(studio.pid) - before[0], cpu_seconds(live.pid) - before[1]
                live.terminate()
                for name, taken in pages(url, run).items():
                    worst, middle = max(taken), statistics.median(taken)
                    print(f"{name}: median {middle:.0f} ms, worst {worst:.0f} ms of {len(taken)}")
                print(
                    f"{NUM_CLIENTS} clients, {num_got} pages in {seconds:.0f} s: studio "
                    f"{used[0]:.2f} s of CPU, run {used[1]:.2f} s: {used[0] / used[1]:.1%}"
                )
            finally:
                link.unlink(missing_ok=True)
                live.terminate()
                studio.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    main(arguments.runs, arguments.run, arguments.seconds)
