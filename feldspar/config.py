"""What a recipe may say: every knob with its meaning, its default and its limits. No torch.

A recipe is a TOML file. Unknown keys are errors. Paths are relative to the recipe's folder or,
where nothing is there, to the working directory; `world:NAME` names a part of the embedded
micro-world (see `WorldConfig`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from feldspar.asking import BudgetConfig as BudgetConfig
from feldspar.asking import ErrorRates as ErrorRates
from feldspar.asking import GenerateConfig as GenerateConfig
from feldspar.asking import TeacherConfig as TeacherConfig
from feldspar.errors import RecipeError
from feldspar.part import Count as Count
from feldspar.part import Fraction as Fraction
from feldspar.part import OptionalPath as OptionalPath
from feldspar.part import Part as Part
from feldspar.part import PathText as PathText
from feldspar.part import Positive as Positive
from feldspar.part import Share as Share
from feldspar.records import Branch


class WorldConfig(Part):
    """The embedded micro-world: `[world]` makes it, `world:taxonomy`, `world:student`,
    `world:aligned`, `world:reward-base`, `world:base-replay` and `world:exams` name its parts."""

    seed: int = 1
    """Another seed is another world: other names, other facts."""
    num_old: Count = 120
    """Entities the base student knows."""
    num_new: Count = 60
    """Entities it does not know: the taxonomy's knowledge leaves are about them."""
    training: Positive = 1.0
    """How long its models are trained, against the default: less for a quick look, at a price."""


class TaxonomyConfig(Part):
    """Where the leaves are and how documents are cut."""

    path: PathText
    """Folder of leaves, or one leaf's folder."""
    mirror: OptionalPath = None
    """Folder of documents laid out `OWNER+REPO/COMMIT/FILE`, for leaves that name a repository."""
    fetch: bool = True
    """Fetch the documents that leaves name by repository or URL and the mirror does not hold."""
    leaves: tuple[str, ...] = ()
    """Keep only leaves whose path starts with one of these. Empty keeps all."""
    branches: tuple[Branch, ...] = ()
    """Keep only these branches. Empty keeps all."""
    chunk_tokens: Count = 400
    """Longest chunk, in tokens of `tokenizer` or in words where none is named."""
    tokenizer: OptionalPath = None
    """A folder with tokenizer.json. None counts words."""
    exam_fraction: Share = 0.2
    """Part of a leaf's seeds held out from the teacher; at least one where a leaf has five."""


class StudentConfig(Part):
    """The model to be taught."""

    base: PathText
    """A model directory in Hugging Face format, or a hub id."""
    system_prompt: str = ""
    """Put before every conversation when not empty."""
    template: Literal["lab", "own"] = "lab"
    """`lab`: the cards' <|system|>, <|user|>, <|assistant|>; `own`: the base's chat template."""
    max_length: Count = 2048
    """Longest training row in tokens; longer ones are dropped and counted."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; weights are kept in float32. auto: bfloat16 on cuda, else float32."""


class BaseReplayConfig(Part):
    """General data mixed into every phase, so that what the base knew is not washed out."""

    source: PathText
    """A JSONL file of `messages` rows, or `world:base-replay`."""
    share: Share = 0.25
    """Part of each phase's rows."""


class ReplayConfig(Part):
    """An earlier phase drawn again: exactly one of `fraction` and `share`."""

    phase: str
    fraction: Fraction | None = None
    """Part of that phase's own rows, redrawn each epoch. 1.0 is the paper's reading."""
    share: Share | None = None
    """Part of this phase's rows."""

    @model_validator(mode="after")
    def _exactly_one(self) -> ReplayConfig:
        if (self.fraction is None) == (self.share is None):
            raise ValueError(f"replay of {self.phase!r} needs exactly one of fraction and share")
        return self


class PhaseConfig(Part):
    """One phase of training, as data."""

    name: str
    branches: tuple[Branch, ...] = ()
    """Whose samples it trains on. Empty: none of the taxonomy's, only `data`."""
    length: Literal["short", "long", "all"] = "all"
    """Which half of the answers, by length in tokens (`mix.short_answer_tokens`)."""
    data: tuple[str, ...] = ()
    """Names of `[[data]]` entries that it trains on too."""
    replay: tuple[ReplayConfig, ...] = ()
    num_epochs: Count = 1
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    num_samples: Count | None = None
    """For planning before there is data."""
    select: Literal["exams", "last"] = "exams"
    """How its checkpoint is chosen."""


class DataConfig(Part):
    """A user's own rows, for phases to name."""

    name: str
    path: PathText
    """JSONL of `messages` rows (InstructLab's layout, `unmask` included)."""


class MixConfig(Part):
    """What each phase sees."""

    short_answer_tokens: Count | None = None
    """Answers up to this long are short. None: the branch's median; ties are short."""
    knowledge_context: Literal["keep", "drop"] = "drop"
    """Whether a knowledge sample shows its passage in the question."""
    base_replay: BaseReplayConfig | None = None


DEFAULT_PHASES = (
    PhaseConfig(name="knowledge-short", branches=("knowledge",), length="short"),
    PhaseConfig(
        name="knowledge-long",
        branches=("knowledge",),
        length="long",
        replay=(ReplayConfig(phase="knowledge-short", fraction=1.0),),
    ),
    PhaseConfig(
        name="skills",
        branches=("foundational", "compositional"),
        replay=(
            ReplayConfig(phase="knowledge-short", fraction=1.0),
            ReplayConfig(phase="knowledge-long", fraction=1.0),
        ),
    ),
)
"""The cards' order: knowledge short, knowledge long replaying it, skills replaying both."""


class TrainConfig(Part):
    """How phases are trained. Defaults: METHOD.md section 3's table, Labradorite's row."""

    phase: tuple[PhaseConfig, ...] = DEFAULT_PHASES
    learning_rate: Positive = 2e-5
    batch_samples: Count = 3840
    """Samples per optimizer step, over all devices."""
    warmup_steps: Annotated[int, Field(ge=0)] = 385
    warmup: Literal["global", "per-phase"] = "global"
    """Whether warm-up runs on across phases or starts again with each."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    tokens_per_micro_batch: Count = 16384
    """Padded tokens computed at once; changes memory and speed, never the result."""
    checkpoints_per_epoch: Count = 1
    """Checkpoints written, and scored where the phase selects on exams, in each epoch."""
    keep_best: Count = 2
    """Candidates kept per phase beside its end."""

    @model_validator(mode="after")
    def _phases_refer_backwards(self) -> TrainConfig:
        seen: set[str] = set()
        for phase in self.phase:
            if phase.name in seen:
                raise ValueError(f"two phases are called {phase.name!r}")
            for replay in phase.replay:
                if replay.phase not in seen:
                    raise ValueError(
                        f"phase {phase.name!r} replays {replay.phase!r}, which is no earlier phase"
                    )
            seen.add(phase.name)
        return self


class PreferConfig(Part):
    """Best-of-N by the log-ratio reward, then fine-tuning on the best, in rounds."""

    aligned: PathText
    """Model directory of the aligned model."""
    base: PathText
    """Model directory of the base it was aligned from."""
    num_prompts: Count = 30_000
    num_answers: Annotated[int, Field(ge=2)] = 16
    """N: answers sampled per prompt."""
    temperature: Positive = 1.0
    max_new_tokens: Count = 300
    num_rounds: Count = 1
    num_epochs: Count = 1
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    normalise: Literal["sum", "mean"] = "sum"
    branches: tuple[Branch, ...] = ("foundational", "compositional")
    """Whose questions are prompts."""
    control: bool = True
    """Also train on a random pick instead of the best, and report it beside."""


class ExamConfig(Part):
    """A user's own exam: a JSONL file of items, scored before and after."""

    name: str
    path: PathText
    """JSONL with `question`, `answer`, and optionally `accepted` and `match`; or a folder of such
    files, each an exam of its own name."""


class EvaluateConfig(Part):
    """What is measured, and how."""

    exam: tuple[ExamConfig, ...] = ()
    """Exams of the user's own, beside the leaves'."""
    max_new_tokens: Count = 64
    min_selection_items: Count = 100
    """Fewer items than this choose no checkpoint: a phase's last is taken, and the run says so."""
    num_resamples: Count = 1000
    """Of the bootstrap behind log-likelihoods' and differences' intervals; shares have Wilson's."""


class Recipe(Part):
    """A whole run."""

    name: str = "run"
    """Of the run's folder, `runs/NAME`."""
    seed: int = 1
    journal: PathText = ".feldspar/journal.sqlite"
    """Where teacher answers are kept, beside the recipe."""
    world: WorldConfig | None = None
    taxonomy: TaxonomyConfig
    teacher: TeacherConfig = TeacherConfig()
    judge: TeacherConfig | None = None
    """None: the teacher judges too."""
    generate: GenerateConfig = GenerateConfig()
    student: StudentConfig
    mix: MixConfig = MixConfig()
    data: tuple[DataConfig, ...] = ()
    train: TrainConfig = TrainConfig()
    prefer: PreferConfig | None = None
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
            raise ValueError(f"name must be a plain folder name, got {name!r}")
        return name

    @model_validator(mode="after")
    def _data_names_exist(self) -> Recipe:
        names = {d.name for d in self.data}
        for phase in self.train.phase:
            for name in phase.data:
                if name not in names:
                    raise ValueError(f"phase {phase.name!r} names data {name!r}: no such [[data]]")
        return self


def is_path(field: FieldInfo) -> bool:
    """Whether a field names a file: contents count in a step's key, places do not."""
    extra = [field.json_schema_extra] + [
        getattr(m, "json_schema_extra", None) for m in field.metadata
    ]
    return any(isinstance(e, dict) and e.get("format") == "path" for e in extra)


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe, with `section.key=value` settings laid over it.

    Raises RecipeError naming the file, the key and the cure.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; `feldspar init NAME` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    for setting in settings:
        _lay_over(tree, setting)
    tree.setdefault("name", path.stem)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_faults(error)}") from None


P = TypeVar("P", bound=Part)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def place_paths(part: P, folder: Path, world: Mapping[str, str]) -> P:
    """The same part with every path real: `world` gives the paths behind `world:NAME`."""
    changes: dict[str, object] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if is_path(field) and isinstance(value, str):
            changes[name] = _place(value, folder, world, name)
        elif isinstance(value, Part):
            changes[name] = place_paths(value, folder, world)
        elif isinstance(value, tuple) and value and isinstance(value[0], Part):
            changes[name] = tuple(place_paths(v, folder, world) for v in value)
    return part.model_copy(update=changes)


def world_parts(part: Part) -> set[str]:
    """The parts of the micro-world that a recipe names: {"taxonomy", "student", ...}."""
    parts: set[str] = set()
    place_paths(part, Path(), _Recorder(parts))
    return parts


class _Recorder(dict[str, str]):
    """Notes every name that is looked up."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__()
        self.seen = seen

    def __missing__(self, name: str) -> str:
        self.seen.add(name)
        return name


def _place(value: str, folder: Path, world: Mapping[str, str], name: str) -> str:
    if value.startswith("world:"):
        try:
            return world[value.removeprefix("world:")]
        except KeyError:
            cure = f"there are: {', '.join(sorted(world))}" if world else "add a [world] table"
            raise RecipeError(f"{name} = {value!r}: no such part of the world; {cure}") from None
    for place in (folder / Path(value).expanduser(), Path(value).expanduser()):
        if place.exists():
            return str(place.resolve())
    return value if _HUB_ID.fullmatch(value) else str(folder / value)


def _lay_over(tree: dict[str, Any], setting: str) -> None:
    """Apply `a.b.c=VALUE`, VALUE in TOML or else a plain string; `train.phase.2.num_epochs=3` goes
    into a list; VALUE `none` removes the key."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {setting}: write it as section.key=value")
    node: Any = tree
    *parents, last = key.strip().split(".")
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        slot: Any = int(last) if isinstance(node, list) else last
        if value.strip() == "none":
            del node[slot]
        else:
            node[slot] = _toml_value(value.strip())
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise RecipeError(f"--set {setting}: the recipe has no place {key!r}") from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_faults(error: ValidationError, limit: int = 3) -> str:
    faults = []
    for fault in error.errors()[:limit]:
        place = ".".join(str(part) for part in fault["loc"]) or "recipe"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key; see docs/recipe.md for the keys there are"
        elif fault["type"] == "missing":
            message = "is missing; add it"
        elif "input" in fault and not isinstance(fault["input"], dict):
            message = f"{message}, got {fault['input']!r}"
        faults.append(f"{place}: {message}")
    if len(error.errors()) > limit:
        faults.append(f"and {len(error.errors()) - limit} more")
    return "; ".join(faults)
