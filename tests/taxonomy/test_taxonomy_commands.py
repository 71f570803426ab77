"""`feldspar taxonomy`: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feldspar.cli.taxonomy import app
from feldspar.taxonomy import CODES

SEEDS = "seed_examples:\n" + "".join(f"- {{question: q{i}, answer: a}}\n" for i in range(5))


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    leaf = tmp_path / "tree" / "compositional_skills" / "writing" / "rhymes"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"task_description: x\n{SEEDS}", encoding="utf-8")
    leaf = tmp_path / "tree" / "knowledge" / "phoenix"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"{SEEDS}document: {{path: .}}\n", encoding="utf-8")
    (leaf / "attribution.txt").write_text("License of the work: CC0-1.0\n", encoding="utf-8")
    (leaf / "phoenix.md").write_text("# Phoenix [bold]\n\n" + "A \x1b[31mword. " * 60, "utf-8")
    return tmp_path / "tree"


def test_check_ends_well_without_errors(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(taxonomy)])
    assert result.exit_code == 0
    assert result.output == "2 of 2 leaves read, 10 seeds; 0 errors, 0 warnings, 0 notes\n"


def test_check_names_place_code_and_cure(taxonomy: Path) -> None:
    broken = taxonomy / "knowledge" / "broken" / "qna.yaml"
    broken.parent.mkdir()
    broken.write_text("a: b: c\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(taxonomy)])
    assert result.exit_code == 3
    place, cure, summary = result.output.splitlines()
    assert place.startswith(f"{broken}:1:5 error FT002 ")
    assert cure.startswith("    put the text between quotes")
    assert summary.startswith("2 of 3 leaves read")
    record = json.loads(
        CliRunner().invoke(app, ["check", str(taxonomy), "--format", "json"]).output
    )
    assert (record["num_files"], record["num_leaves"], record["num_seeds"]) == (3, 2, 10)
    assert record["findings"][0]["line"] == 1


def test_check_of_a_folder_without_leaves_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 3
    assert "no qna.yaml" in result.output


def test_tree_shows_seeds_and_documents(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["tree", str(taxonomy)])
    assert result.exit_code == 0
    assert "rhymes  5 seeds" in result.output
    assert "phoenix  5 seeds, 1 document" in result.output
    leaves = json.loads(CliRunner().invoke(app, ["tree", str(taxonomy), "--json"]).output)
    assert [leaf["path"] for leaf in leaves] == [
        "compositional_skills/writing/rhymes",
        "knowledge/phoenix",
    ]


def test_chunks_are_shown_without_what_steers_a_terminal(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["chunks", str(taxonomy), "--max-tokens", "50"])
    assert result.exit_code == 0
    assert "# Phoenix [bold]" in result.output
    assert "\x1b" not in result.output
    assert result.output.endswith("chunks of at most 50 words in 1 knowledge leaf\n")


def test_chunks_of_documents_that_are_absent_is_an_error(taxonomy: Path) -> None:
    (taxonomy / "knowledge" / "phoenix" / "phoenix.md").unlink()
    result = CliRunner().invoke(app, ["chunks", str(taxonomy)])
    assert result.exit_code == 3
    assert "FT034" in result.output


@pytest.mark.slow
def test_check_loads_neither_torch_nor_transformers(taxonomy: Path) -> None:
    program = (
        "import sys; from feldspar.cli.taxonomy import app\n"
        f"app(['check', {str(taxonomy)!r}], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


@pytest.fixture
def broken(taxonomy: Path) -> Path:
    file = taxonomy / "knowledge" / "100%,a:b" / "qna.yaml"
    file.parent.mkdir()
    file.write_text(f"{SEEDS}document:\n  patterns: [*.md]\n", encoding="utf-8")
    return file


def test_github_shows_findings_beside_their_lines(taxonomy: Path, broken: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(taxonomy), "--format", "github"])
    assert result.exit_code == 3
    (line,) = result.output.splitlines()
    name = str(broken).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    assert line.startswith(f"::error file={name},line=8,col=14,title=FT002::")


def test_sarif_names_rules_and_places(taxonomy: Path, broken: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(taxonomy), "--format", "sarif"])
    record = json.loads(result.output)
    assert (result.exit_code, record["version"]) == (3, "2.1.0")
    (run,) = record["runs"]
    (told,) = run["results"]
    assert run["tool"]["driver"]["rules"][told["ruleIndex"]]["id"] == told["ruleId"] == "FT002"
    place = told["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 8, "startColumn": 14}
    assert place["artifactLocation"]["uri"].endswith("/100%25%2Ca%3Ab/qna.yaml")
    assert (told["level"], "quotes" in told["message"]["text"]) == ("error", True)


def test_fix_mends_and_then_checks(taxonomy: Path, broken: Path) -> None:
    broken.write_text("version: 7\n" + broken.read_text().replace("[*.md]", "[*.md] "))
    arguments = ["check", str(taxonomy / "knowledge"), "--fix"]
    output = CliRunner().invoke(app, arguments).output
    assert f"{broken}:1 fixed: version 7 became 3\n" in output
    assert f"{broken}:9 fixed: *.md is between quotes\n" in output
    assert broken.read_text().endswith('patterns: ["*.md"]\n')
    assert "FT002" not in output
    as_json = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert json.loads(as_json.stdout)["findings"][0]["code"] == "FT031"


@pytest.mark.parametrize(("level", "exit_code"), [("error", 0), ("warning", 3), ("note", 3)])
def test_the_exit_code_goes_by_severity(taxonomy: Path, level: str, exit_code: int) -> None:
    skill = taxonomy / "compositional_skills" / "writing" / "rhymes" / "qna.yaml"
    skill.write_text(f"version: 9\n{skill.read_text()}", encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(taxonomy), "--fail-on", level])
    assert result.exit_code == exit_code


def test_every_code_explains_itself() -> None:
    for code, known in CODES.items():
        result = CliRunner().invoke(app, ["check", "--explain", code.lower()])
        assert result.exit_code == 0
        assert result.output == f"{code} ({known.severity}): {known.meaning}.\n{known.why}\n"
    assert CliRunner().invoke(app, ["check", "--explain", "FT000"]).exit_code == 2
    assert CliRunner().invoke(app, ["check"]).exit_code == 2


def test_tree_counts_by_branch_and_domain(taxonomy: Path) -> None:
    output = CliRunner().invoke(app, ["tree", str(taxonomy)]).output
    rows = [line.split() for line in output.splitlines()]
    assert ["knowledge", "1", "5", "1", "0", "0", "0"] in rows
    assert ["phoenix", "1", "5", "1", "0", "0", "0"] in rows


def test_chunks_say_what_they_cover_and_which_contexts_they_hold(taxonomy: Path) -> None:
    leaf = taxonomy / "knowledge" / "phoenix"
    (leaf / "phoenix.md").write_text("# Phoenix\n\nIt is a bird.\n\n# Ash\n\nIt is grey.\n")
    seeds = "\n".join(
        f"- {{context: {context}, question: q, answer: a}}"
        for context in ("It is a bird.", "a bird. Ash")
    )
    (leaf / "qna.yaml").write_text(f"seed_examples:\n{seeds}\ndocument: {{path: .}}\n")
    result = CliRunner().invoke(app, ["chunks", str(leaf), "--max-tokens", "6"])
    assert "holds the context of the seeds at line 2\n# Phoenix\n" in result.output
    assert "chunks cover 100.0% of 11 words; no one chunk holds" in result.output
    assert "the seeds at line 3\n" in result.output


class Teacher(BaseHTTPRequestHandler):
    """Proposes one question, and asks for nothing."""

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "Question: What is it?\nAnswer: A bird."}
        self.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def answer(self, record: object) -> None:
        data = json.dumps(record).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_draft_asks_the_teacher_behind_a_url(
    taxonomy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    leaf = taxonomy / "knowledge" / "phoenix"
    with ThreadingHTTPServer(("127.0.0.1", 0), Teacher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        result = CliRunner().invoke(app, ["draft", str(leaf), "--teacher", url])
        server.shutdown()
        thread.join()
    assert result.exit_code == 0, result.output
    draft = (leaf / "qna.draft.yaml").read_text()
    assert draft.startswith("# A DRAFT")
    assert "question: What is it?" in draft


def test_only_changed_leaves_are_checked(taxonomy: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(taxonomy), *who, *arguments], check=True)

    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    command = ["check", str(taxonomy), "--changed", "--base", "main"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.output) == (0, "no leaf is new or changed since main\n")
    bad = taxonomy / "compositional_skills" / "bad" / "qna.yaml"
    bad.parent.mkdir()
    bad.write_text("a: b: c\n", encoding="utf-8")
    result = CliRunner().invoke(app, [*command, "--json"])
    record = json.loads(result.output)
    assert (result.exit_code, record["num_files"]) == (3, 1)
    assert [finding["code"] for finding in record["findings"]] == ["FT002"]


def test_chunks_are_printed_for_programs(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["chunks", str(taxonomy), "--max-tokens", "50", "--json"])
    (leaf,) = json.loads(result.output)
    assert (leaf["path"], result.exit_code) == ("knowledge/phoenix", 0)
    assert leaf["num_covered"] == leaf["num_words"]
    assert {"id", "document", "num_words", "text", "seed_lines"} == leaf["chunks"][0].keys()


def test_a_new_leaf_is_put_where_the_other_commands_look(
    taxonomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taxonomy.rename(taxonomy.with_name("taxonomy"))
    monkeypatch.chdir(taxonomy.parent)
    assert CliRunner().invoke(app, ["new", "knowledge/new"]).exit_code == 0
    assert Path("taxonomy", "knowledge", "new", "qna.yaml").is_file()
    assert CliRunner().invoke(app, ["new", "elsewhere/knowledge/new"]).exit_code == 0
    assert Path("elsewhere", "knowledge", "new", "qna.yaml").is_file()


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_tables_as_spreadsheets_write_them_are_imported(tmp_path: Path, delimiter: str) -> None:
    table = tmp_path / "table.csv"
    rows = ["question|answer", 'Say hello to Ann.|"Hello, Ann; dear!"']
    text = "\n".join(rows).replace("|", delimiter)
    table.write_text(f"\ufeff{text}\n", encoding="utf-8")
    leaf = tmp_path / "compositional_skills" / "a"
    assert CliRunner().invoke(app, ["import", str(table), str(leaf)]).exit_code == 0
    assert "Hello, Ann; dear!" in (leaf / "qna.yaml").read_text(encoding="utf-8")


def test_nothing_from_a_leaf_steers_the_terminal(tmp_path: Path) -> None:
    leaf = tmp_path / "compositional_skills" / "a\x1b]0;x\x07"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"{SEEDS}\u202e: '\\e[31m'\n", encoding="utf-8")
    for command in ("check", "tree", "chunks"):
        output = CliRunner().invoke(app, [command, str(tmp_path)]).output
        assert not set("\x1b\x07\u202e") & set(output)
    assert r"a\x1b]0;x\x07" in CliRunner().invoke(app, ["check", str(tmp_path)]).output
