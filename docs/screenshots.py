"""Take the pictures of docs/studio.md: `python docs/screenshots.py RUNS RUN [PICTURE ...]`.

RUNS also holds a study called `study-frontier`, and the project that `feldspar init` writes lies
around it. Needs playwright (in the `dev` extra) and Debian's chromium. Look at each before you
commit it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from feldspar.children import child_environment, module_command

CHROMIUM = "/usr/bin/chromium"
FOLDER = Path(__file__).parent / "img"
Theme = Literal["light", "dark"]
LEAF = "/leaf?taxonomy=taxonomy&path=knowledge/science/geology/labradorite"
PICTURES: tuple[tuple[str, str, int, int, Theme], ...] = (
    # First: it waits until all samples are counted, which other pages tell of.
    ("studio-samples", "/runs/{run}/samples?words=lives", 1280, 800, "dark"),
    ("studio-verdict", "/runs/{run}/verdict", 1280, 1180, "light"),
    ("studio-leaves", "/runs/{run}/leaves", 1280, 900, "light"),
    ("studio-training", "/runs/{run}/training", 1280, 1000, "light"),
    ("studio-exams", "/runs/{run}/exams", 1280, 1100, "light"),
    ("studio-phone", "/runs/{run}/verdict", 360, 760, "dark"),
    ("studio-compare", "/compare?before={run}%40base&after={run}", 1280, 860, "light"),
    ("studio-study", "/frontier?study=study-frontier", 1280, 900, "light"),
    ("studio-leaf", LEAF, 1280, 1000, "light"),
)
"""Name, page, width, height, theme."""


def main(runs: str, run: str, *wanted: str) -> None:
    command = [*module_command("feldspar.cli.main"), "studio", runs, "--port", "0", "--json"]
    studio = subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment())
    try:
        assert studio.stdout is not None
        url = json.loads(studio.stdout.readline())["url"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for picture in PICTURES:
                if not wanted or picture[0] in wanted:
                    take(browser, url, run, *picture)
            browser.close()
    finally:
        studio.terminate()
        studio.wait()


def take(
    browser: Browser,
    url: str,
    run: str,
    name: str,
    page: str,
    width: int,
    height: int,
    theme: Theme,
) -> None:
    """One picture of what fits the window."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=1
    )
    shown = context.new_page()
    shown.goto(url)
    shown.goto(f"{url.split('/?')[0]}{page.format(run=run)}", timeout=120_000)
    shown.wait_for_load_state("networkidle")
    shown.screenshot(path=FOLDER / f"{name}.png")
    context.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
