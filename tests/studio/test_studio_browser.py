"""The studio in a real browser: no console error, no serious fault of axe, nothing wider than a
phone, and keys that work. Skipped where there is no chromium or no playwright."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from studio_client import serving_one_reply, write_study
from tiny_run import write_recipe

from feldspar.children import child_environment, module_command
from feldspar.studio.app import NAVIGATION

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
MAKER = Path(__file__).parents[2] / "benchmarks" / "synthetic_run.py"
PAGES = [page for page, _ in NAVIGATION]
MORE = ["samples?page=2", "sample?id=0000000000000001"]
LEAF = "leaf?taxonomy=taxonomy&path=knowledge/town/kirby"
OTHERS = [
    *("", "plan?recipe=recipe.toml", "taxonomy", LEAF, "frontier?study=r-frontier"),
    "compare?before=many%40base&after=many%40skills",
]
"""Pages of no run."""
SIZES = [(1280, 900), (768, 1000), (360, 740)]
RULES = """axe.run().then(found => found.violations
  .filter(fault => ["serious", "critical"].includes(fault.impact))
  .map(fault => `${fault.id}: ${fault.nodes[0].html.slice(0, 200)}`))"""
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio that shows a run of 600 samples."""
    folder = tmp_path_factory.mktemp("studio")
    environment = {**child_environment(), "FELDSPAR_CACHE": str(folder / "cache")}
    making = [sys.executable, "-P", str(MAKER), str(folder / "runs" / "many"), "--samples", "600"]
    making += ["--leaves", "8"]
    subprocess.run(making, check=True, env=environment)
    write_recipe(folder)
    write_study(folder / "runs" / "r-frontier")
    command = [*module_command("feldspar.cli.main"), "studio", str(folder / "runs"), "--port", "0"]
    command += ["--reviewer", "anna", "--json"]
    with (
        serving_one_reply("Question: Where does Kirby lie?\nAnswer: In the north.") as (teacher, _),
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child,
    ):
        (folder / "taught.toml").write_text(
            f"[taxonomy]\npath = 'taxonomy'\n[student]\nbase = 'b'\n"
            f"[teacher]\nendpoint = '{teacher}'\n"
        )
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_sound(
    studio: str, browser: "playwright.Browser", size: tuple[int, int], theme: str
) -> None:
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    page.on("console", lambda told: faults.append(f"console: {told.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.goto(studio)
    script = Path(axe.__file__).with_name("axe.min.js").read_text()
    for name in [*(f"runs/many/{page}" for page in (*PAGES, *MORE)), *OTHERS]:
        page.goto(f"{studio.partition('/?')[0]}/{name}")
        found = page.evaluate(f"{script};{RULES}")
        faults += [f"{name}: {fault}" for fault in found]
        wide = page.evaluate("document.documentElement.scrollWidth")
        faults += [f"{name} is {wide} wide"] if wide > width else []
    context.close()
    assert faults == []


def test_typing_narrows_the_samples_down(studio: str, browser: "playwright.Browser") -> None:
    page = browser.new_context().new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(studio)
    page.goto(f"{studio.partition('/?')[0]}/runs/many/samples")
    before = page.locator("#found [role=status]").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("zzzz")
    page.get_by_text("0 samples").wait_for()
    assert not before.startswith("0 ")
    page.context.close()


def test_samples_are_reviewed_by_keys_alone(studio: str, browser: "playwright.Browser") -> None:
    page = browser.new_context().new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(studio)
    page.goto(f"{studio.partition('/?')[0]}/runs/many/samples")
    for key in "ja":
        page.keyboard.press(key)
    page.locator("#found li").nth(0).get_by_text("✓ accepted by anna").wait_for()
    page.keyboard.press("r")
    page.keyboard.type("of no use")
    page.keyboard.press("Enter")
    page.locator("#found li").nth(1).get_by_text("✕ rejected by anna: of no use").wait_for()
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("Who lives here?")
    page.get_by_role("button", name="Save").click()
    page.locator("#found li").nth(2).get_by_text("Who lives here?").wait_for()
    page.keyboard.press("k")
    page.keyboard.press("u")
    page.locator("#found li").nth(2).get_by_text("✎ edited").wait_for(state="detached")
    page.goto(f"{studio.partition('/?')[0]}/runs/many/reviews")
    assert "anna reviewed 2 samples" in page.locator("main").inner_text()
    page.context.close()


def test_one_press_is_one_decision_and_its_reply_takes_nobody_away(
    studio: str, browser: "playwright.Browser"
) -> None:
    page = browser.new_context().new_page()
    page.set_default_timeout(WAIT_MS)
    held: list[playwright.Route] = []
    page.route("**/review", lambda route: held.append(route))
    page.goto(studio)
    page.goto(f"{studio.partition('/?')[0]}/runs/many/samples?page=3")
    page.keyboard.press("j")
    # A key that is held down, and a second press before the reply.
    page.keyboard.down("a")
    page.keyboard.down("a")
    page.keyboard.up("a")
    page.keyboard.press("a")
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("Half writ")
    assert len(held) == 1
    held[0].continue_()
    page.locator("#found li").nth(0).get_by_text("✓ accepted by anna").wait_for()
    page.keyboard.type("ten")
    answer = page.locator("#found li").nth(1).locator("textarea").first
    assert answer.input_value() == "Half written"
    # A reply that comes when another list is shown moves nobody to its beginning.
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.locator("input[type=search]").fill("zzzz")
    page.get_by_text("0 samples").wait_for()
    held[1].continue_()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.activeElement.type") == "search"
    page.context.close()


def test_a_leaf_is_written_from_a_dropped_document(
    studio: str, browser: "playwright.Browser", tmp_path: Path
) -> None:
    page = browser.new_context().new_page()
    page.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    document = tmp_path / "town.md"
    document.write_text("# Kirby\n\nKirby lies in the north.\n\nIts baker is called Zorbo.\n")
    page.goto(studio)
    page.get_by_role("link", name="Write the first leaf").click()
    page.get_by_label("its place").fill("knowledge/town/kirby")
    page.get_by_role("button", name="Begin").click()
    page.set_input_files("#documents-input", document)
    page.locator(".passage summary").click()
    page.get_by_role("button", name="Write a seed on this passage").click()
    page.keyboard.type("Who bakes in Kirby?")
    # Half of a pair is told of where it stands, and no longer when it is whole.
    finding = page.locator(".pair").get_by_text("FT021")
    finding.wait_for()
    page.locator(".pair [data-field=answer]").fill("Zorbo.")
    finding.wait_for(state="detached")
    page.get_by_text("✓ has a seed").wait_for()
    page.locator("#leaf-diff").get_by_text("+      - question: Who bakes in Kirby?").wait_for()
    # A teacher's proposal is no part of the file before it is kept.
    page.get_by_text("Let a teacher propose seeds").click()
    page.get_by_role("button", name="Ask http").click()
    page.locator("#drafts .draft").wait_for()
    assert "Where does Kirby lie?" not in page.locator("#leaf-diff").inner_text()
    page.get_by_role("button", name="Keep it").click()
    page.locator("#leaf-diff").get_by_text("+      - question: Where does Kirby lie?").wait_for()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("saved; ").wait_for()
    # Who writes on is not led away from it.
    follow = page.get_by_text("Saved. Next:")
    follow.wait_for()
    page.get_by_label("written by").fill("anna b")
    follow.wait_for(state="hidden")
    page.get_by_role("button", name="Save", exact=True).dblclick()
    follow.wait_for()
    assert page.locator("#leaf-problem").inner_text() == ""
    wrong = [tmp_path / "a.exe", tmp_path / "b.exe"]
    for path in wrong:
        path.write_text("x")
    page.set_input_files("#documents-input", wrong)
    for path in wrong:
        page.locator("#drop-problem").get_by_text(path.name).wait_for()
    page.reload()
    questions = page.locator("#examples .pair [data-field=question]")
    assert [questions.nth(n).input_value() for n in range(2)] == [
        "Who bakes in Kirby?",
        "Where does Kirby lie?",
    ]
    assert faults == []
    page.context.close()
