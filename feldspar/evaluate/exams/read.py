"""A user's own exam: one JSON object a line."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from feldspar.config import ExamConfig
from feldspar.errors import RecipeError
from feldspar.records import ExamItem, Form, Match
from feldspar.runs import ROWS, open_step, read_rows
from feldspar.steps import Step
from feldspar.text.match import FORMS, is_json, is_one_number, normalise

RETENTION_SELECT = 0.5
"""Of an exam of what is to be kept, the part that chooses (docs/decisions/043)."""
_OF_WORDS = ("holds", "answered", "upper", "lower")
"""Forms that look for an accepted answer's words, of which there must be some."""
KEYS = frozenset({"question", "answer", "accepted", "match", "choices", "context"})


def exam_files(config: ExamConfig) -> list[ExamConfig]:
    """An exam file as it is; a folder as one exam for each `.jsonl` file in it, by its name; an
    earlier run as the rows of its leaf exams. Raises RecipeError where there is none."""
    path = Path(config.path)
    if not path.is_dir():
        return _of_folder(config, {config.name: path})
    if (path / "current.json").is_file():
        earlier = open_step(path, "leaf-exams")
        if earlier is None:
            raise RecipeError(f"evaluate.exam {config.name!r}: the run {path} made no leaf exams")
        return [config.model_copy(update={"path": str(earlier.folder / ROWS), "retention": True})]
    files = sorted(p for p in path.iterdir() if p.suffix == ".jsonl")
    if not files:
        raise RecipeError(f"evaluate.exam {config.name!r}: {path} holds no .jsonl file")
    return _of_folder(config, {file.stem: file for file in files})


def all_exam_files(configs: Iterable[ExamConfig]) -> list[ExamConfig]:
    """Of all the recipe's exams. Raises RecipeError where two have one name: they would be one."""
    found = [(config.name, exam) for config in configs for exam in exam_files(config)]
    whose: dict[str, str] = {}
    for table, exam in found:
        if exam.name in whose:
            raise RecipeError(
                f"evaluate.exam {whose[exam.name]!r} and {table!r} both have an exam "
                f"{exam.name!r}; name one of the files otherwise"
            )
        if ": " in exam.name:
            raise RecipeError(
                f"evaluate.exam {table!r}: {exam.name!r} holds a colon and a space, which name "
                "parts of an exam; name it otherwise"
            )
        whose[exam.name] = table
    return [exam for _, exam in found]


def read_exams(configs: list[ExamConfig]) -> Iterator[ExamItem]:
    """The items of all the user's own exams, some of them set apart for choosing."""
    for config in configs:
        items = list(read_exam(config, Path(config.path)))
        apart = _set_apart(items, config)
        for item in items:
            yield dataclasses.replace(
                item,
                is_retention=bool(config.retention),
                use="select" if item.id in apart else "report",
            )


OWN_EXAMS_STEP = Step.pure("own-exams", read_exams, version=1)


def _of_folder(config: ExamConfig, files: dict[str, Path]) -> list[ExamConfig]:
    """One exam for each file. Raises RecipeError where `retention` names one that is not there."""
    kept = config.retention if isinstance(config.retention, tuple) else ()
    for name in kept:
        if name not in files:
            raise RecipeError(
                f"evaluate.exam {config.name!r}: retention names {name!r}; there are: "
                f"{', '.join(files)}"
            )
    return [
        config.model_copy(
            update={
                "name": name,
                "path": str(file),
                "retention": name in kept if kept else bool(config.retention),
            }
        )
        for name, file in files.items()
    ]


def _set_apart(items: list[ExamItem], config: ExamConfig) -> set[str]:
    """Ids of the items that choose and are not reported: the first ones by a hash of their own, so
    that neither their order in the file nor the run's seed decides."""
    share = config.select
    if share is None:
        share = RETENTION_SELECT if config.retention else 0.0
    ordered = sorted(items, key=lambda item: _content_id("select", item.id))
    return {item.id for item in ordered[: int(share * len(items))]}


def read_exam(config: ExamConfig, path: Path) -> Iterator[ExamItem]:
    """Read items, one a line; only `question` and `answer` are needed:

        {"question": "7 + 3?", "answer": "7 + 3 = 10.", "accepted": ["10"], "match": "final"}

    `accepted` is the answer itself where it is not given. With `"match": "choice"`, `choices` are
    wrong answers, and the right one must be likelier than each of them. The rows of an earlier
    run's leaf exams are read as they are, under the exam's name. Raises RecipeError with file and
    line.
    """
    if path.name == ROWS:
        for item in read_rows(path, ExamItem):
            if item.match == "choice":
                continue
            yield dataclasses.replace(
                item, exam=config.name, leaf="", branch=None, origin="file", use="report"
            )
        return
    lines_of: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    item = _read_item(line, config.name, f"{path}:{number}")
                    if item.id in lines_of:
                        raise RecipeError(
                            f"{path}:{number}: asks what line {lines_of[item.id]} asks; drop one"
                        )
                    lines_of[item.id] = number
                    yield item
    except OSError as error:
        raise RecipeError(
            f"{path}: exam {config.name!r} cannot be read: {error.strerror}"
        ) from error
    if not lines_of:
        raise RecipeError(
            f"{path}: exam {config.name!r} has no items; write one JSON object a line"
        )


def _read_item(line: bytes, exam: str, place: str) -> ExamItem:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise RecipeError(f"{place}: not JSON; write one object with question and answer") from None
    if not isinstance(row, dict):
        raise RecipeError(f"{place}: not an object; write one with question and answer")
    if unknown := sorted(row.keys() - KEYS):
        raise RecipeError(
            f"{place}: unknown key {unknown[0]!r}; there are {', '.join(sorted(KEYS))}"
        )
    question, answer = _text(row, "question", place), _text(row, "answer", place)
    context = _text(row, "context", place) if row.get("context") is not None else None
    match = _match(row, place)
    choices = _choices(row, answer, place) if match == "choice" else ()
    is_matched = match not in ("likelihood", "judge", "choice")
    return ExamItem(
        id=_content_id(exam, question, answer, context, *choices),
        exam=exam,
        question=question,
        reference=answer,
        accepted=_accepted(row, answer, match, place) if is_matched else (),
        match=match,
        choices=choices,
        context=context,
    )


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"{place}: `{key}` must be text, got {str(value)[:40]!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{place}: `{key}` holds half a character (a lone surrogate)") from None
    return value


def _match(row: dict[str, Any], place: str) -> Match:
    match = row.get("match", "final")
    if match not in (*FORMS, "likelihood", "judge", "choice"):
        raise RecipeError(
            f"{place}: `match` must be {', '.join(get_args(Form))}, likelihood, judge or choice, "
            f"got {str(match)[:40]!r}"
        )
    if "choices" in row and match != "choice":
        raise RecipeError(f'{place}: `choices` go with "match": "choice"')
    return match  # type: ignore[no-any-return]


def _accepted(row: dict[str, Any], answer: str, match: Match, place: str) -> tuple[str, ...]:
    accepted = row.get("accepted", [answer])
    if not isinstance(accepted, list) or not accepted:
        raise RecipeError(
            f"{place}: `accepted` must be a list of texts; leave it out to use answer"
        )
    texts = tuple(_text({"accepted": one}, "accepted", place) for one in accepted)
    if match in ("words", "items", "lines") and not all(text.isdecimal() for text in texts):
        raise RecipeError(f'{place}: with `match` {match}, `accepted` is how many, such as ["3"]')
    if match == "number" and not all(is_one_number(text) for text in texts):
        raise RecipeError(
            f'{place}: with `match` number, each of `accepted` is one number, such as ["8"]'
        )
    if match in _OF_WORDS and not all(normalise(text) for text in texts):
        raise RecipeError(f"{place}: with `match` {match}, each of `accepted` has a word or number")
    if match == "json" and not all(is_json(text) for text in texts):
        raise RecipeError(f"{place}: with `match` json, each of `accepted` is JSON itself")
    return texts


def _choices(row: dict[str, Any], answer: str, place: str) -> tuple[str, ...]:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices:
        raise RecipeError(f"{place}: `choices` must be a list of wrong answers")
    texts = tuple(_text({"choices": one}, "choices", place) for one in choices)
    if len({answer.strip(), *(text.strip() for text in texts)}) <= len(texts):
        raise RecipeError(f"{place}: `choices` repeat the answer or each other")
    return texts


def _content_id(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
