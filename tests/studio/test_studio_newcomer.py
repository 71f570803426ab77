"""The way of someone who has never seen the tool, in a real browser, without a terminal: from a
document that is dropped into the page to a report that is saved."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feldspar.children import child_environment, module_command

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
DOCUMENT = """\
# Kirby

Kirby lies in the north of the island. Its harbour was built in 1871 by Anna Lund. The harbour has
three quays, and the largest of them is called the Salt Quay.

## The bakery

The baker of Kirby is called Zorbo. He bakes rye bread every morning at five. His bakery stands in
Lantern Street since 1902. It was founded by Mira Holt.

## The market

The market of Kirby is held on Thursdays. Farmers sell cheese and apples there. In winter the market
moves into the old net hall.
"""
SEEDS = (
    ("Who built the harbour of Kirby?", "Anna Lund."),
    ("How many quays has the harbour of Kirby?", "Three quays."),
    ("Who bakes in Kirby?", "Zorbo."),
    ("What does Zorbo bake?", "Rye bread."),
    ("When is the market of Kirby held?", "On Thursdays."),
)
SETTINGS = """\
student.device = "cpu"
student.max_length = 192
taxonomy.chunk_tokens = 60
train.phase.0.num_epochs = 1
train.batch_samples = 8
evaluate.general.enabled = false
evaluate.max_new_tokens = 8
"""
WAIT_MS = 240_000
Look = Callable[[str], None]
"""Called with the name of each step when its page is there."""


@pytest.fixture
def project(tmp_path: Path, cache: Path) -> Iterator[tuple[Path, str]]:
    """An empty folder with a base model next to it, and the address of its studio."""
    from tiny import save_model

    save_model(tmp_path / "model")
    # Room for three passages and an answer, of nearly a token a letter.
    config_path = tmp_path / "model" / "config.json"
    config = json.loads(config_path.read_text())
    config_path.write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    environment = {**child_environment(), "FELDSPAR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [*module_command("feldspar.cli.main"), "studio", "--port", "0", "--json"]
    command += ["--reviewer", "anna"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path) as child:
        try:
            assert child.stdout is not None
            yield tmp_path, json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()


@pytest.mark.timeout(1800)
def test_a_newcomer_needs_no_terminal(project: tuple[Path, str]) -> None:
    folder, url = project
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page.set_default_timeout(WAIT_MS)
        faults: list[str] = []
        page.on("console", lambda told: faults.append(f"console: {told.text}"))
        page.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status} {r.url}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        try:
            go_the_way(page, folder, url, lambda _: None)
        except playwright.Error as error:
            shown = page.locator("main").inner_text()
            pytest.fail(f"{error}\n{faults}\n{page.url} shows:\n{shown}")
        finally:
            browser.close()
    assert faults == []


def go_the_way(page: "playwright.Page", folder: Path, url: str, look: Look) -> None:
    page.goto(url)
    look("home")
    write_a_leaf(page, folder, look)
    run_it(page, look)
    # A colleague's run of the same leaf, to compare with.
    shutil.copytree(folder / "runs" / "town", folder / "runs" / "colleague")
    review_three(page, look)
    honour_them(page, look)
    compare_them(page, look)
    chat(page, look)
    report = save_the_report(page, look)
    assert "Kirby" in report
    assert "<script" not in report


def write_a_leaf(page: "playwright.Page", folder: Path, look: Look) -> None:
    document = folder / "kirby.md"
    document.write_text(DOCUMENT)
    page.get_by_role("link", name="Write the first leaf").click()
    page.get_by_label("its place").fill("knowledge/town/kirby")
    look("taxonomy")
    page.get_by_role("button", name="Begin").click()
    look("leaf-empty")
    page.set_input_files("#documents-input", document)
    passage = page.locator(".passage")
    passage.locator("summary").click()
    look("leaf-documents")
    passage.get_by_role("button", name="Write a seed on this passage").click()
    for place, (question, answer) in enumerate(SEEDS):
        if place:
            page.get_by_role("button", name="One more question").click()
        pair = page.locator(".pair").nth(place)
        pair.get_by_label("question").fill(question)
        if question != SEEDS[-1][0]:
            pair.get_by_label("answer").fill(answer)
    finding = page.locator(".pair").get_by_text("FT021")
    finding.wait_for()
    look("leaf-finding")
    page.locator(".pair").last.get_by_label("answer").fill(SEEDS[-1][1])
    finding.wait_for(state="detached")
    page.get_by_label("domain").fill("towns")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved. Next:").wait_for()
    look("leaf-saved")
    page.get_by_role("link", name="a recipe and a run").click()


def run_it(page: "playwright.Page", look: Look) -> None:
    look("recipes")
    page.get_by_role("button", name="Take my-documents").click()
    page.get_by_label("name of the run").fill("town")
    page.get_by_label("other settings").fill(SETTINGS)
    look("plan-form")
    page.get_by_role("button", name="Calculate with these").click()
    page.get_by_text("calls to the teacher").wait_for()
    look("plan")
    page.get_by_role("button", name="Start the run").click()
    look("starting")
    # A run this small may have ended before its page was asked for.
    page.get_by_role("link", name="See what it learned").wait_for()
    look("ended")


def review_three(page: "playwright.Page", look: Look) -> None:
    page.get_by_role("link", name="See what it learned").click()
    look("verdict")
    page.get_by_role("link", name="Samples", exact=True).click()
    page.get_by_label("state").select_option("kept")
    items = page.locator("#found li.sample")
    items.first.wait_for()
    page.wait_for_url("**state=kept**")
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("a")
    items.nth(0).get_by_text("✓ accepted by anna").wait_for()
    page.keyboard.press("r")
    page.keyboard.type("of no use")
    page.keyboard.press("Enter")
    items.nth(1).get_by_text("✕ rejected by anna: of no use").wait_for()
    page.keyboard.press("e")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("Anna Lund built it in 1871.")
    look("reviewing")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    items.nth(2).get_by_text("✎ edited by anna").wait_for()
    look("reviewed")


def honour_them(page: "playwright.Page", look: Look) -> None:
    page.get_by_role("link", name="Reviews", exact=True).click()
    page.get_by_text("anna reviewed 3 samples").wait_for()
    look("reviews")
    page.get_by_role("button", name="Run it again with these decisions").click()
    page.get_by_role("link", name="See what it learned").wait_for()
    page.get_by_role("link", name="Reviews", exact=True).click()
    page.get_by_text("✓ honoured").wait_for()
    look("honoured")


def compare_them(page: "playwright.Page", look: Look) -> None:
    page.get_by_role("link", name="Verdict", exact=True).click()
    page.get_by_role("link", name="Compare it").click()
    page.get_by_label("this model").select_option("colleague@knowledge")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("rowheader", name="leaf exams").wait_for()
    look("compare")


def chat(page: "playwright.Page", look: Look) -> None:
    page.get_by_role("link", name="runs", exact=True).click()
    look("home-with-runs")
    page.get_by_role("link", name="town", exact=True).click()
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_label("question").fill("Who bakes in Kirby?")
    page.get_by_role("button", name="Ask all").click()
    page.locator("#chat-stop").wait_for()
    page.locator("#chat-stop").wait_for(state="hidden")
    for who in ("base", "taught", "retrieved"):
        said = page.locator(f"[data-who={who}]").inner_text()
        assert said
        # What went wrong would stand in brackets.
        assert not said.startswith("("), said
    page.get_by_text("Why this answer?").first.click()
    page.get_by_text("ROUGE-L").first.wait_for()
    page.get_by_text("The passages that it was shown").click()
    page.locator(".why").get_by_text("The baker of Kirby is called Zorbo.").first.wait_for()
    look("chat")


def save_the_report(page: "playwright.Page", look: Look) -> str:
    page.get_by_role("link", name="Verdict", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as one file").click()
    look("saved")
    return Path(download.value.path()).read_text(encoding="utf-8")
