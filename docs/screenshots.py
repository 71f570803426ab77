"""Take the pictures of docs/studio.md: `python docs/screenshots.py RUNS RUN`.

Needs playwright (in the `dev` extra) and Debian's chromium. Look at each before you commit it.
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
PICTURES: tuple[tuple[str, str, int, int, Theme], ...] = (
    # First: it waits until all samples are counted, which other pages tell of.
    ("studio-samples", "samples?words=lives", 1280, 800, "dark"),
    ("studio-verdict", "verdict", 1280, 1180, "light"),
    ("studio-leaves", "leaves", 1280, 900, "light"),
    ("studio-training", "training", 1280, 1000, "light"),
    ("studio-exams", "exams", 1280, 1100, "light"),
    ("studio-phone", "verdict", 360, 760, "dark"),
)
"""Name, page, width, height, theme."""


def main(runs: str, run: str) -> None:
    command = [*module_command("feldspar.cli.main"), "studio", runs, "--port", "0", "--json"]
    studio = subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment())
    try:
        assert studio.stdout is not None
        url = json.loads(studio.stdout.readline())["url"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for picture in PICTURES:
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
    shown.goto(f"{url.split('/?')[0]}/runs/{run}/{page}", timeout=120_000)
    shown.screenshot(path=FOLDER / f"{name}.png")
    context.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
