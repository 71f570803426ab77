"""The models in folders: the base, the reward pair, and those that fill a role."""

from __future__ import annotations

import json
from pathlib import Path

from feldspar.ahead.checks import Note, Subject
from feldspar.config import StudentConfig, TeacherConfig
from feldspar.config.load import PACKAGE
from feldspar.errors import RecipeError, TaxonomyError, TrainingError
from feldspar.files import write_json
from feldspar.prefer.reward_prompts import PlacedLeaf, check_turns, unused_domains
from feldspar.runs import cache_folder
from feldspar.student.bases.find import file_at_hand, is_file_base, look_into
from feldspar.student.bases.origin import says_of_origin
from feldspar.student.hub import hub_name
from feldspar.student.model_sizes import find_config
from feldspar.student.template.choose import has_chat_template
from feldspar.taxonomy import find_leaves

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
_CACHE = "checked-models.json"
_WORLD = "part of the micro-world, which the run makes"
_ON_HUB = "on the hub: the run fetches it, and looks at it then"


def base(subject: Subject) -> str | None:
    """Files, tensors, tokenizer and template of the base."""
    if not subject.reaches("phases"):
        return None
    named = subject.named.student.base
    given = subject.recipe.student.base
    if is_file_base(given) and not Path(given).is_dir():
        return _to_be_made(given)
    folder = _folder(subject, given, named)
    if isinstance(folder, Note):
        return folder
    says = _checked(folder, subject.recipe.student)
    if subject.named.student.template == "auto":
        has = "has a" if has_chat_template(folder) else "has no"
        says += f" (student.template is not set, and the base {has} chat template)"
    origin = says_of_origin(folder)
    return f"{says}; {origin}" if origin else says


def licence(subject: Subject) -> str | None:
    """Whether there is one, or the result could not be published."""
    student, stated = subject.recipe.student, subject.recipe.publish.licence
    if not subject.reaches("phases") or subject.named.student.base.startswith("world:"):
        return None
    from feldspar.publish.licence import find_licence, licence_of_base

    config = find_config(student.base)
    if config is None and not stated:
        return Note("known when the base is there")
    of_base = licence_of_base(str(config.parent)) if config else ""
    found = find_licence(stated, of_base, ())
    return Note(f"{found.name}: {found.warnings[0]}") if found.warnings else found.name


def reward_pair(subject: Subject) -> str | None:
    """Both models are there, whole, and read text alike; or the reward model is there."""
    config = subject.recipe.prefer
    if config is None or subject.named.prefer is None or not subject.reaches("preferred"):
        return None
    if config.reward_model is not None:
        there = _folder(subject, config.reward_model, config.reward_model)
        if isinstance(there, Note) or config.reward == "reward-model":
            return there if isinstance(there, Note) else "the reward model is there"
    if config.reward == "reward-model":
        return None
    assert config.aligned is not None
    assert config.base is not None
    if config.aligned == config.base and config.aligned_server == config.base_server:
        raise RecipeError(
            f"prefer.aligned and prefer.base are the same model ({config.aligned}), so every "
            "reward would be 0; name the base that the aligned model was made from"
        )
    folders = []
    for role, path, named, server in (
        ("aligned", config.aligned, subject.named.prefer.aligned, config.aligned_server),
        ("base", config.base, subject.named.prefer.base, config.base_server),
    ):
        folder = _folder(subject, path, named or path, has_weights=server is None)
        if isinstance(folder, Note):
            return folder
        try:
            if role == "aligned" and not has_chat_template(folder):
                raise TrainingError(
                    f"{folder} has no chat template, so there is no telling how it is spoken to; "
                    "add chat_template.jinja beside its tokenizer.json"
                )
            if server is None:
                _checked(folder, StudentConfig(base=str(folder), template="lab"))
        except TrainingError as error:
            raise TrainingError(f"prefer.{role}: {error}") from error
        folders.append(folder)
    first, second = ((folder / "tokenizer.json").read_bytes() for folder in folders)
    if first != second:
        return Note("both are there; their tokenizers differ, so each reads texts with its own")
    return "both are there, with one tokenizer"


def reward_prompts(subject: Subject) -> str | None:
    """What the reward pair reads first is of leaves that are there, in turns that its chat template
    writes."""
    config, taxonomy = subject.recipe.prefer, subject.recipe.taxonomy
    if config is None or config.reward_prompts is None or not subject.reaches("preferred"):
        return None
    assert subject.named.prefer is not None
    assert config.aligned is not None
    assert taxonomy is not None, "the recipe was checked"
    try:
        places = find_leaves(taxonomy)
    except TaxonomyError:
        return Note("known when the taxonomy is there")
    leaves = (PlacedLeaf(place.path, place.branch) for place in places if place.branch is not None)
    if faults := list(unused_domains(config, leaves)):
        raise RecipeError(faults[0])
    named = subject.named.prefer.aligned or config.aligned
    is_served = config.aligned_server is not None
    folder = _folder(subject, config.aligned, named, has_weights=not is_served)
    if isinstance(folder, Note):
        return folder
    check_turns(str(folder), config.reward_prompts)
    num_domains = len(config.reward_prompts.domain)
    return f"{num_domains} domains; {config.aligned}'s chat template writes them"


def folders_of_roles(subject: Subject) -> str | None:
    """Models in folders that write, judge or are measured."""
    recipe = subject.recipe
    roles: dict[str, TeacherConfig | None] = {"teacher": recipe.teacher, "judge": recipe.judge}
    if subject.reaches("scores"):
        roles["evaluate.server"] = recipe.evaluate.server
        roles["evaluate.mt_bench.judge"] = (
            recipe.evaluate.mt_bench.judge if recipe.evaluate.mt_bench else None
        )
    if recipe.prefer is not None and subject.reaches("preferred"):
        roles["prefer.aligned_server"] = recipe.prefer.aligned_server
        roles["prefer.base_server"] = recipe.prefer.base_server
    found = []
    for role, config in roles.items():
        if config is not None and config.folder is not None:
            try:
                _checked(_existing(config.folder), StudentConfig(base="", template="own"))
            except TrainingError as error:
                raise TrainingError(f"{role}.folder: {error}") from error
            found.append(role)
    return f"whole: {', '.join(found)}" if found else None


def _folder(subject: Subject, path: str, named: str, *, has_weights: bool = True) -> Path | Note:
    """Where a model lies; a hub id is fetched by a run alone. Raises TrainingError."""
    if not subject.is_run and not Path(path).is_dir():
        if named.startswith("world:"):
            return Note(_WORLD)
        config = find_config(path)
        if config is None or not any(config.parent.glob("*.safetensors")):
            if hub_name(path) is not None:
                return Note(_ON_HUB)
            raise TrainingError(f"{named}: no such model directory")
        return config.parent
    from feldspar.student.model import find_model, words_checkpoint

    return find_model(path) if has_weights else Path(words_checkpoint(path).path)


def _to_be_made(base: str) -> Note:
    """Of a GGUF file: what a run will do with it. Raises FeldsparError where it could not."""
    file = file_at_hand(base, cache_folder())
    if file is None and base.startswith(PACKAGE):
        return Note("in a package: the run downloads it, looks at it and dequantises it once")
    if file is None:
        raise TrainingError(f"{base}: no such file; name a GGUF file or a model folder")
    return Note(f"GGUF, {look_into(file).what_was_lost()}: the run dequantises it once")


def _existing(folder: str) -> Path:
    from feldspar.student.model import find_model

    return find_model(folder)


def _checked(folder: Path, student: StudentConfig) -> str:
    """What `check_base` says, once for each content: by size and time of change of its files."""
    stamps = []
    for file in sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file()):
        stat = file.stat()
        stamps.append([file.name, stat.st_size, stat.st_mtime_ns])
    content: list[object] = [student.template, student.system_prompt, stamps]
    cache = cache_folder() / _CACHE
    known = _read_object(cache)
    entry = known.get(str(folder.absolute()))
    if isinstance(entry, dict) and entry.get("content") == content:
        return str(entry.get("says"))
    from feldspar.student.model import check_base

    says = check_base(str(folder), student)
    known = _read_object(cache) | {str(folder.absolute()): _entry(content, says)}
    write_json(cache, known, is_shared=True)
    return says


def _entry(content: list[object], says: str) -> dict[str, object]:
    return {"content": content, "says": says}


def _read_object(path: Path) -> dict[str, object]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
