"""The embedded teacher as a process: it answers over HTTP, and ends with its parent."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jinja2
import openai
import pytest
from typer.testing import CliRunner

from feldspar.cli.world import app
from feldspar.config import ErrorRates, WorldConfig
from feldspar.errors import TeacherError
from feldspar.serve import STAGE_HEADER
from feldspar.world.brain import Brain
from feldspar.world.sections import read_blocks
from feldspar.world.serve import MODEL, serving, start_teacher, world_of

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "feldspar" / "generate" / "prompts"
SMALL = WorldConfig(num_old=20, num_new=10)
SEED = {"question": "Add 30 and 4.", "answer": "30 + 4 = 34.", "context": None}
VALUES = {
    "task": "Add.",
    "domain": "",
    "examples": [SEED],
    "count": 2,
    "context": "",
    "persona": "precise",
    "question": "What is 12 + 5?",
    "answer": "12 + 5 = 17.",
}


@pytest.mark.slow
def test_it_answers_as_the_brain_does_and_says_who_it_is() -> None:
    rates = ErrorRates(wrong_fact=0.5)
    with (
        start_teacher(SMALL, rates) as url,
        openai.OpenAI(base_url=url, api_key="none") as client,
    ):
        model = client.models.list().data[0]
        assert model.id == MODEL
        assert model.model_extra == {"revision": Brain(world_of(SMALL), rates).revision}
        said = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Who are you?"}], n=2
        )
        assert len(said.choices) == 2
    with (
        pytest.raises(openai.APIConnectionError),
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        client.models.list()


def render(stage: str, **values: object) -> str:
    """A prompt of the package as it is sent, without its front matter."""
    loader = jinja2.FileSystemLoader(PROMPTS)
    text = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template(
        f"{stage}.md.j2"
    )
    return re.sub(r"\A---\n.*?\n---\n", "", text.render({**VALUES, **values}), flags=re.DOTALL)


@pytest.mark.slow
def test_the_packages_own_prompts_are_understood() -> None:
    world = world_of(SMALL)
    assert world is not None
    entity = world.new[0]
    document = f"{entity.name} lives in {entity.home}. {entity.name} likes {entity.food}."
    faithful = {
        "document": document,
        "question": f"Where does {entity.name} live?",
        "answer": f"{entity.name} lives in {entity.home}.",
    }
    with (
        start_teacher(SMALL, ErrorRates()) as url,
        openai.OpenAI(base_url=url, api_key="none") as client,
    ):

        def ask(stage: str, **values: object) -> str:
            reply = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": render(stage, **values)}],
                extra_headers={STAGE_HEADER: stage},
            )
            return reply.choices[0].message.content or ""

        assert ask("skill-answer") == "12 + 5 = 17."
        assert ask("judge-question").endswith("Verdict: YES")
        assert ask("judge-answer").endswith("Rating: 3")
        assert ask("judge-answer", answer="12 + 5 = 18.").endswith("Rating: 1")
        asked = [block.question for block in read_blocks(ask("skill-questions"))]
        assert [s.kind for q in asked if (s := world.solve(q))] == ["add", "add"]
        pairs = read_blocks(ask("knowledge-pairs", document=document))
        assert [world.is_right(b.question, b.answer) for b in pairs] == [True, True]
        assert ask("judge-faithful", **faithful).endswith("Verdict: YES")
        lie = f"{entity.name} likes {entity.home}."
        assert ask("judge-faithful", **{**faithful, "answer": lie}).endswith("Verdict: NO")
        assert ask("judge-relevant", **faithful).endswith("Verdict: YES")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_it_ends_when_its_parent_is_killed() -> None:
    code = (
        "import time\n"
        "from feldspar.config import ErrorRates\n"
        "from feldspar.world import serve\n"
        "with serve.start_teacher(None, ErrorRates()) as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("http://127.0.0.1:")
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 1
        assert is_alive(int(children[0]))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
    deadline = time.monotonic() + 5
    while is_alive(int(children[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(int(children[0]))


@pytest.mark.slow
def test_it_starts_without_torch() -> None:
    code = (
        "import sys, feldspar.world.serve\n"
        "print({'torch', 'transformers', 'openai'} & {m.partition('.')[0] for m in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert loaded.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_world_that_cannot_be_is_told_in_one_line() -> None:
    with (
        pytest.raises(TeacherError, match=r"did not start: .*num_old, num_new"),
        start_teacher(WorldConfig(num_old=10_000), ErrorRates()),
    ):
        pass


def test_a_taken_port_is_told_with_the_cure() -> None:
    async def run() -> None:
        async with serving(None, ErrorRates()) as teacher:
            port = int(teacher.url.rpartition(":")[2].removesuffix("/v1"))
            async with serving(None, ErrorRates(), port):
                pass

    with pytest.raises(TeacherError, match="cannot be listened on"):
        asyncio.run(run())


def test_the_command_writes_the_world(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        '[world]\nnum_old = 20\nnum_new = 10\n[taxonomy]\npath = "world:taxonomy"\n'
        '[student]\nbase = "world:student"\n'
    )
    folder = tmp_path / "world"
    done = CliRunner().invoke(app, ["write", str(folder), "--recipe", str(recipe)])
    assert done.exit_code == 0, done.output
    assert (folder / "taxonomy" / "knowledge" / "people" / "register_1" / "qna.yaml").is_file()
    assert str(folder / "exams") in done.output.replace("\n", "")
