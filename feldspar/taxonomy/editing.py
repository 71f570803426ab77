"""A qna.yaml changed by a form: what was changed is written anew, the rest stays to the letter.

The text is parsed for the places of its values; a value that the form has otherwise is replaced in
its place, so comments, key order, quotes and blank lines survive. What was made is read again, and
is refused where it does not say what the form says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import yaml

from feldspar.errors import TaxonomyError
from feldspar.taxonomy.nodes import MAX_FILE_BYTES

DESCRIPTIONS = ("task_description", "document_outline")
"""Keys that say what a leaf is about; the first that is there is the form's."""
_PLAIN = re.compile(r"[A-Za-z0-9(][^\t\n#]*")
_KNOWLEDGE = """\
version: 3
created_by: ''
domain: ''
document_outline: ''
seed_examples: []
document:
  path: documents
"""
_SKILL = "version: 3\ncreated_by: ''\ntask_description: ''\nseed_examples: []\n"
_BY_HAND = "edit the file by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormPair:
    """A question and its answer. `old`: which pair of the file's example it was, if any."""

    question: str
    answer: str
    old: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormExample:
    """A context and what is asked of it; a seed of a skill is one with a single pair."""

    context: str
    pairs: tuple[FormPair, ...]
    old: int | None = None
    """Which example of the file it was, counted from 0; None for a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafForm:
    """What of a leaf can be edited in a form."""

    created_by: str = ""
    domain: str = ""
    description: str = ""
    examples: tuple[FormExample, ...] = ()


class FieldPlace(NamedTuple):
    """Which lines of the text a field of the form stands on, counted from 1."""

    field: str
    """`description`, `example-0-context`, `example-0-pair-1-answer`."""
    first: int
    last: int
    column: int
    """That it begins in, in its first line; counted from 1."""

    def holds(self, line: int, column: int) -> bool:
        """Whether a place in the text is in the field; column 0 is all of a line."""
        is_before = line == self.first and 0 < column < self.column
        return self.first <= line <= self.last and not is_before


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def empty_leaf(*, is_knowledge: bool) -> str:
    """The text that a new leaf begins with."""
    return _KNOWLEDGE if is_knowledge else _SKILL


def read_form(text: str) -> LeafForm:
    """What a file's form shows first. Raises TaxonomyError where it has no form."""
    root = _root(text)
    fields = _fields(root)
    examples = fields.get("seed_examples")
    return LeafForm(
        created_by=_text(fields.get("created_by")),
        domain=_text(fields.get("domain")),
        description=next((t for k in DESCRIPTIONS if (t := _text(fields.get(k)))), ""),
        examples=tuple(
            _example(item, number) for number, item in enumerate(_items(examples, "seed_examples"))
        ),
    )


def edited(text: str, form: LeafForm, *, is_knowledge: bool) -> str:
    """The text with what the form says. Raises TaxonomyError where that cannot be done safely."""
    root = _root(text)
    edits = sorted(_edits(text, root, form, is_flat=not is_knowledge))
    for before, after in pairwise(edits):
        if before.end > after.start:
            raise TaxonomyError(f"two changes meet in one place of the file; {_BY_HAND}")
    made = text
    for edit in reversed(edits):
        made = made[: edit.start] + edit.text + made[edit.end :]
    if _said(read_form(made)) != _said(form):
        raise TaxonomyError(f"the file's layout does not allow this change; {_BY_HAND}")
    return made


def field_places(text: str) -> list[FieldPlace]:
    """Where the fields of a file's form stand in it, the largest first."""
    fields = _fields(_root(text))
    places = [_place(name, fields[name]) for name in ("created_by", "domain") if name in fields]
    if description := next((fields[k] for k in DESCRIPTIONS if k in fields), None):
        places.append(_place("description", description))
    for number, item in enumerate(_items(fields.get("seed_examples"), "seed_examples")):
        name = f"example-{number}"
        places.append(_place(name, item))
        of_example = _fields(item)
        if "context" in of_example:
            places.append(_place(f"{name}-context", of_example["context"]))
        for pair_number, pair in enumerate(_pair_nodes(item)):
            of_pair, pair_name = _fields(pair), f"{name}-pair-{pair_number}"
            places.append(_place(pair_name, pair))
            places += [
                _place(f"{pair_name}-{key}", of_pair[key])
                for key in ("question", "answer")
                if key in of_pair
            ]
    return sorted(places, key=lambda place: place.first - place.last)


def _place(field: str, node: yaml.Node) -> FieldPlace:
    first, last = node.start_mark.line + 1, node.end_mark.line + 1
    # A block ends where the next token begins.
    last = max(first, last - (node.end_mark.column == 0))
    return FieldPlace(field, first, last, node.start_mark.column + 1)


def _root(text: str) -> yaml.MappingNode:
    if len(text) > MAX_FILE_BYTES:
        raise TaxonomyError(f"the file has {len(text)} letters; {_BY_HAND}")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise TaxonomyError(f"{line}not YAML; {_BY_HAND}, or `feldspar taxonomy fix`") from error
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise TaxonomyError(f"the file holds no keys in lines of their own; {_BY_HAND}")
    if "&" in text and any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text)):
        raise TaxonomyError(f"the file has aliases (`*name`); {_BY_HAND}")
    return root


def _fields(node: yaml.Node) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise TaxonomyError(f"line {node.start_mark.line + 1}: no keys and values; {_BY_HAND}")
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _items(node: yaml.Node | None, name: str) -> list[yaml.Node]:
    if node is None or (isinstance(node, yaml.ScalarNode) and _is_null(node)):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise TaxonomyError(f"`{name}` is no list; {_BY_HAND}")
    return list(node.value)


def _is_null(node: yaml.ScalarNode) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _text(node: yaml.Node | None) -> str:
    if node is None:
        return ""
    if not isinstance(node, yaml.ScalarNode):
        raise TaxonomyError(f"line {node.start_mark.line + 1}: no text; {_BY_HAND}")
    return "" if _is_null(node) else str(node.value).strip()


def _pair_nodes(item: yaml.Node) -> list[yaml.Node]:
    """The pairs of an example; a flat seed is its own."""
    fields = _fields(item)
    if "questions_and_answers" in fields:
        return _items(fields["questions_and_answers"], "questions_and_answers")
    return [item]


def _example(item: yaml.Node, number: int) -> FormExample:
    pairs = []
    for pair_number, node in enumerate(_pair_nodes(item)):
        fields = _fields(node)
        question, answer = _text(fields.get("question")), _text(fields.get("answer"))
        pairs.append(FormPair(question=question, answer=answer, old=pair_number))
    context = _text(_fields(item).get("context"))
    return FormExample(context=context, pairs=tuple(pairs), old=number)


def _said(form: LeafForm) -> object:
    """What a form says, whatever it was before."""
    examples = [
        (e.context.strip(), [(p.question.strip(), p.answer.strip()) for p in e.pairs])
        for e in form.examples
    ]
    head = (form.created_by.strip(), form.domain.strip(), form.description.strip())
    return head, examples


def _edits(text: str, root: yaml.MappingNode, form: LeafForm, *, is_flat: bool) -> Iterator[_Edit]:
    fields = _fields(root)
    description = next((k for k in DESCRIPTIONS if k in fields), DESCRIPTIONS[0])
    wanted = {"created_by": form.created_by, "domain": form.domain, description: form.description}
    missing = ""
    for key, value in wanted.items():
        if key in fields:
            yield from _value_edit(text, fields[key], value, indent=0, is_flow=False)
        elif value.strip():
            missing += f"{key}: {_scalar(value, 0)}\n"
    examples = fields.get("seed_examples")
    if missing:
        start = next(k.start_mark.index for k, _ in root.value)
        yield _Edit(start, start, missing)
    new = [_new_example(e, is_flat=is_flat) for e in form.examples if e.old is None]
    if examples is None:
        yield _Edit(len(text), len(text), "seed_examples:\n" + _as_items(new, 2))
        return
    kept = {e.old: e for e in form.examples if e.old is not None}
    items = _items(examples, "seed_examples")
    if not items:
        if new:
            yield _Edit(
                examples.start_mark.index,
                _end(text, examples),
                "\n" + _as_items(new, 2).rstrip("\n"),
            )
        return
    yield from _list_edits(text, examples, kept.keys(), new)
    for number, example in kept.items():
        if number >= len(items):
            raise TaxonomyError("the file has fewer examples than the form; load the page again")
        yield from _example_edits(text, items[number], example)


def _example_edits(text: str, item: yaml.Node, example: FormExample) -> Iterator[_Edit]:
    fields, is_flow = _fields(item), bool(getattr(item, "flow_style", False))
    indent = item.start_mark.column
    if "context" in fields:
        yield from _value_edit(text, fields["context"], example.context, indent, is_flow=is_flow)
    elif example.context.strip() and not is_flow:
        start = item.start_mark.index
        yield _Edit(start, start, f"context: {_scalar(example.context, indent)}\n{' ' * indent}")
    pairs = _pair_nodes(item)
    if "questions_and_answers" in fields:
        new = [_new_pair(pair) for pair in example.pairs if pair.old is None]
        kept = {p.old for p in example.pairs if p.old is not None}
        yield from _list_edits(text, fields["questions_and_answers"], kept, new)
    for pair in example.pairs:
        if pair.old is None:
            continue
        if pair.old >= len(pairs):
            raise TaxonomyError("the file has fewer pairs than the form; load the page again")
        node = pairs[pair.old]
        of_pair, flow = _fields(node), bool(getattr(node, "flow_style", False))
        for key, value in (("question", pair.question), ("answer", pair.answer)):
            if key in of_pair:
                yield from _value_edit(
                    text, of_pair[key], value, node.start_mark.column, is_flow=flow
                )
            elif value.strip():
                place = f"line {node.start_mark.line + 1}"
                raise TaxonomyError(f"{place}: the pair has no `{key}:`; {_BY_HAND}")


def _list_edits(
    text: str, node: yaml.Node, kept: Set[int], new: Sequence[list[str]]
) -> Iterator[_Edit]:
    """Take out the items that are not kept, and add new ones behind the last."""
    items = _items(node, "list")
    if getattr(node, "flow_style", False):
        if new or kept != set(range(len(items))):
            raise TaxonomyError(f"line {node.start_mark.line + 1}: a list in one line; {_BY_HAND}")
        return
    for number, item in enumerate(items):
        if number not in kept:
            start = text.rfind("\n", 0, item.start_mark.index) + 1
            end = _line_end(text, _end(text, item))
            yield _Edit(start, min(end + 1, len(text)), "")
    if not new:
        return
    column = node.start_mark.column
    if last := [item for number, item in enumerate(items) if number in kept]:
        end = _line_end(text, _end(text, last[-1]))
        yield _Edit(end, end, "\n" + _as_items(new, column).rstrip("\n"))
    else:
        start = text.rfind("\n", 0, items[0].start_mark.index) + 1
        yield _Edit(start, start, _as_items(new, column))


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: behind its last value, before comments that follow."""
    children = [v for _, v in node.value] if isinstance(node, yaml.MappingNode) else node.value
    if isinstance(node, yaml.ScalarNode) or not children or getattr(node, "flow_style", False):
        start, end = node.start_mark.index, node.end_mark.index
        return int(start + len(text[start:end].rstrip()))
    return _end(text, children[-1])


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _value_edit(
    text: str, node: yaml.Node, value: str, indent: int, *, is_flow: bool
) -> Iterator[_Edit]:
    if _text(node) == value.strip():
        return
    start, end = node.start_mark.index, _end(text, node)
    # A comment behind the value would become a part of lines of text.
    has_comment = bool(text[end : _line_end(text, end)].strip())
    is_quoted = is_flow or (has_comment and "\n" in value)
    made = _in_quotes(value) if is_quoted else _scalar(value, indent)
    # An empty value has no place of its own behind its colon.
    is_missing = text[start - 1 : start] == ":"
    yield _Edit(start, end, f" {made}" if is_missing else made)


def _scalar(value: str, indent: int) -> str:
    """A text as YAML: plain where it is safe, after `|` where it has lines, else in quotes."""
    value = value.strip().replace("\r\n", "\n")
    if "\n" in value and not value.startswith(" "):
        lines = value.split("\n")
        if all(line.isprintable() for line in lines):
            pad = " " * (indent + 2)
            return "|\n" + "\n".join(pad + line if line else "" for line in lines)
    if _PLAIN.fullmatch(value) and ": " not in value and not value.endswith(":"):
        try:
            if yaml.safe_load(value) == value:
                return value
        except yaml.YAMLError:
            pass
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    return json.dumps(value.strip().replace("\r\n", "\n"), ensure_ascii=False)


def _new_example(example: FormExample, *, is_flat: bool) -> list[str]:
    """The lines of a new item, without its dash."""
    if is_flat and len(example.pairs) < 2:
        (pair,) = example.pairs or (FormPair(question="", answer=""),)
        lines = _new_pair(pair)
        if example.context.strip():
            lines += _key("context", example.context)
        return lines
    pairs = [_new_pair(pair) for pair in example.pairs]
    lines = _key("context", example.context)
    return [*lines, "questions_and_answers:", *_as_items(pairs, 2).rstrip("\n").split("\n")]


def _new_pair(pair: FormPair) -> list[str]:
    return [*_key("question", pair.question), *_key("answer", pair.answer)]


def _key(key: str, value: str) -> list[str]:
    return f"{key}: {_scalar(value, 0)}".split("\n")


def _as_items(items: Sequence[Sequence[str]], column: int) -> str:
    """Lines of items as a list whose dashes stand in a column."""
    pad = " " * column
    text = ""
    for lines in items:
        first, *rest = lines
        text += f"{pad}- {first}\n" + "".join(f"{pad}  {line}\n" if line else "\n" for line in rest)
    return text
