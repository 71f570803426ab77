"""A whole recipe: its own keys, its world and taxonomy, and every other table."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import field_validator, model_validator

from feldspar.config.base import Count, OptionalPath, Part, PathText, Positive, Seed, Share
from feldspar.config.cluster import ClusterConfig
from feldspar.config.evaluate import EvaluateConfig
from feldspar.config.gate import GateConfig
from feldspar.config.generate import GenerateConfig
from feldspar.config.mix import DataConfig, MixConfig, OwnVoiceConfig
from feldspar.config.plan import PlanConfig
from feldspar.config.prefer import PreferConfig
from feldspar.config.publish import PublishConfig
from feldspar.config.serve import ServeConfig
from feldspar.config.slurm import SlurmConfig
from feldspar.config.student import StudentConfig
from feldspar.config.teacher import TeacherConfig
from feldspar.config.track import TrackConfig
from feldspar.config.train import LEARNED_AND_KEPT, SELECT, LearnConfig, TrainConfig
from feldspar.errors import RecipeError
from feldspar.keys import Place
from feldspar.records import Branch


class WorldConfig(Part):
    """The embedded micro-world: `[world]` makes it, `world:taxonomy`, `world:student`,
    `world:aligned`, `world:reward-base`, `world:base-replay` and `world:exams` name its parts;
    `world:tiny-llama`, `-mistral`, `-granite`, `-qwen3`, `-mixtral` and `-mixtral-instruct` are
    untrained models in those families' shapes."""

    seed: Seed = 1
    """Another seed is another world: other names, other facts."""
    num_old: Count = 120
    """Entities the base student knows."""
    num_new: Count = 60
    """Entities it does not know: the taxonomy's knowledge leaves are about them."""
    training: Positive = 1.0
    """How long the world's models are trained, relative to the default: less is faster and
    worse."""


class TaxonomyConfig(Part):
    """Where the leaves are and how documents are cut."""

    path: PathText
    """Folder of leaves, or one leaf's folder."""
    mirror: OptionalPath = None
    """Folder of documents with the layout `OWNER+REPO/COMMIT/FILE`, for leaves that name a
    repository."""
    fetch: Place[bool] = True
    """Fetch documents that leaves name by repository or URL and the mirror lacks."""
    leaves: tuple[str, ...] = ()
    """Keep only leaves whose path starts with one of these. Empty keeps all."""
    branches: tuple[Branch, ...] = ()
    """Keep only these branches. Empty keeps all."""
    skip: tuple[str, ...] = ()
    """Leave these leaves out, or all leaves below these folders: `knowledge/science/geology`."""
    allow_secrets: bool = False
    """Let documents and seeds go to the teacher that hold what looks like a key, token or password
    (`FT047`), which stop a run otherwise."""
    chunk_tokens: Count = 400
    """Longest chunk, in tokens of `tokenizer`, or in words if there is none."""
    tokenizer: OptionalPath = None
    """A folder with tokenizer.json. None counts words."""
    exam_fraction: Share = 0.2
    """Share of a leaf's seeds held out from the teacher; at least one if a leaf has five."""


class Recipe(Part):
    """One run, from the taxonomy to the scores."""

    name: Place[str] = "run"
    """Name of the run's folder, `runs/NAME`. Default: the recipe's file name, or its folder's if
    the file is called recipe.toml."""
    extends: str | tuple[str, ...] = ()
    """Recipes to start from, by path relative to this file; later ones win, and this file wins over
    all. Tables are merged key by key, lists of tables by `name`; other values are replaced; "none"
    removes a table. Every path is relative to this recipe."""
    seed: Seed = 1
    """Seed of everything that is drawn at random: which seeds a prompt shows, the order of rows,
    sampled answers. The same seed and recipe give the same result."""
    journal: PathText = ".feldspar/journal.sqlite"
    """File that stores the teacher's answers, relative to the recipe."""
    world: WorldConfig | None = None
    """The embedded micro-world, for trying things out without a teacher or a model. Only with
    `[world]` can `world:NAME` be used."""
    taxonomy: TaxonomyConfig | None = None
    """What is taught: the folder of leaves. None: nothing is generated, and every phase trains on
    `[[data]]` alone."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that writes the samples."""
    judge: TeacherConfig | None = None
    """None: the teacher judges too."""
    generate: GenerateConfig = GenerateConfig()
    """How many samples the teacher writes, and which are rejected."""
    student: StudentConfig
    """The model that is trained."""
    mix: MixConfig = MixConfig()
    """How samples become the rows of each phase."""
    own_voice: OwnVoiceConfig | None = None
    """Answers in the base's own words. None: in the teacher's."""
    data: tuple[DataConfig, ...] = ()
    """Your own rows, for phases to train on or to replay."""
    train: TrainConfig = TrainConfig()
    """The phases and how they are trained."""
    track: TrackConfig = TrackConfig()
    """Where metrics are shown besides metrics.jsonl."""
    prefer: PreferConfig | None = None
    """Preference tuning after the phases. None: no preference tuning."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Which exams and benchmarks score the model."""
    gate: GateConfig = GateConfig()
    """What `feldspar gate` asks of the result."""
    cluster: ClusterConfig = ClusterConfig()
    """Where commands are started."""
    slurm: SlurmConfig | None = None
    """The Slurm job that the run submits itself as. None: it runs where it is started."""
    plan: PlanConfig = PlanConfig()
    """What `feldspar plan` needs to know and cannot measure."""
    learn: LearnConfig = LearnConfig()
    """How `feldspar learn` adds one leaf to a trained model."""
    publish: PublishConfig = PublishConfig()
    """What `feldspar publish` writes."""
    serve: ServeConfig = ServeConfig()
    """Limits of `feldspar serve`."""

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        is_plain = name.isprintable() and not any(c in name for c in "/\\")
        if not name or name.startswith(".") or not is_plain:
            raise ValueError(f"name must be a plain folder name, got {name!r}")
        return name

    def wanted_taxonomy(self, what: str) -> TaxonomyConfig:
        """The taxonomy, for `what` needs leaves. Raises RecipeError where the recipe has none."""
        if self.taxonomy is None:
            raise RecipeError(f"{what} needs leaves, and the recipe has no [taxonomy]; add one")
        return self.taxonomy

    @model_validator(mode="before")
    @classmethod
    def _commands_start_on_the_cluster(cls, given: object) -> object:
        return _placed_on_cluster(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _only_ray_hands_out_gpus(self) -> Recipe:
        for name, config in self.asked_models().items():
            key = "gpus_each" if config.gpus_each else "nodes_each"
            if config.engine != "ray" and (config.gpus_each or config.nodes_each > 1):
                raise ValueError(
                    f"{name}.{key} needs the engine ray, which hands out GPUs and nodes: write "
                    '[cluster] engine = "ray"; on one machine put `env CUDA_VISIBLE_DEVICES=...` '
                    "before the command"
                )
        return self

    @model_validator(mode="after")
    def _workers_have_a_cluster(self) -> Recipe:
        if self.train.workers is not None and self.cluster.engine != "ray":
            raise ValueError(
                'train.workers are placed by a cluster: write [cluster] engine = "ray", or take '
                "[train.workers] out; on one machine `--nproc` says how many processes train"
            )
        return self

    @model_validator(mode="after")
    def _nodes_have_ray(self) -> Recipe:
        if self.slurm is not None and self.slurm.nodes > 1 and self.cluster.engine != "ray":
            raise ValueError(
                f'slurm.nodes = {self.slurm.nodes} needs [cluster] engine = "ray": without it the '
                "run would use the first node alone"
            )
        return self

    def asked_models(self) -> dict[str, TeacherConfig]:
        """Every table that names a model which is asked, by its place in the recipe."""
        mt_bench, prefer = self.evaluate.mt_bench, self.prefer
        tables = {
            "teacher": self.teacher,
            "judge": self.judge,
            "evaluate.server": self.evaluate.server,
            "evaluate.mt_bench.judge": mt_bench.judge if mt_bench else None,
            "prefer.aligned_server": prefer.aligned_server if prefer else None,
            "prefer.base_server": prefer.base_server if prefer else None,
            "prefer.reward_model_server": prefer.reward_model_server if prefer else None,
            "prefer.policy_server": prefer.policy_server if prefer else None,
        }
        return {name: config for name, config in tables.items() if config is not None}

    @model_validator(mode="after")
    def _ready_rows_need_no_leaves(self) -> Recipe:
        if self.taxonomy is not None:
            return self
        either = "add [taxonomy], or"
        for phase in self.train.phase:
            if phase.branches or phase.whole_branches or not phase.data:
                raise ValueError(
                    f"phase {phase.name!r} trains on samples of leaves, and there is no [taxonomy];"
                    f" {either} write [[train.phase]] tables that name `data` and no branches"
                )
            if phase.select == "exams":
                raise ValueError(
                    f"phase {phase.name!r} selects by exams, which are made of leaves; {either} "
                    'write select = "log-likelihood" or "last"'
                )
        if self.prefer is not None:
            raise ValueError(
                f"[prefer] asks the questions of generated samples; {either} take [prefer] out"
            )
        return self

    @model_validator(mode="after")
    def _data_names_exist(self) -> Recipe:
        names = {d.name for d in self.data}
        for phase in self.train.phase:
            for name in (*phase.data, *(r.data for r in phase.replay if r.data)):
                if name not in names:
                    raise ValueError(f"phase {phase.name!r} names data {name!r}: no such [[data]]")
        return self

    @model_validator(mode="after")
    def _kl_has_rows(self) -> Recipe:
        if self.train.kl is not None and self.mix.base_replay is None:
            raise ValueError(
                "train.kl holds the student to the base on rows of base replay, and there are "
                "none: add [mix.base_replay], or take train.kl out"
            )
        return self

    @model_validator(mode="after")
    def _release_is_measured(self) -> Recipe:
        if self.prefer and "mt-bench" in self.prefer.release and self.evaluate.mt_bench is None:
            raise ValueError(
                'prefer.release names "mt-bench", and the recipe does not run it: add '
                "[evaluate.mt_bench], or take it out"
            )
        return self

    @model_validator(mode="after")
    def _phases_select_by_what_there_is(self) -> Recipe:
        tasks = [benchmark.task for benchmark in self.evaluate.benchmark]
        for phase in self.train.phase:
            if phase.select not in (*SELECT, *tasks):
                raise ValueError(
                    f"phase {phase.name!r} selects by {phase.select!r}; there are "
                    f"{', '.join((*SELECT, *tasks))}, and any task of an [[evaluate.benchmark]]"
                )
            if phase.select == LEARNED_AND_KEPT and not self.evaluate.general.enabled:
                raise ValueError(
                    f"phase {phase.name!r} selects by {LEARNED_AND_KEPT}, which needs "
                    "evaluate.general.enabled = true"
                )
        return self


_COMMAND_TABLES = (
    ("teacher",),
    ("judge",),
    ("evaluate", "server"),
    ("evaluate", "mt_bench", "judge"),
    ("prefer", "aligned_server"),
    ("prefer", "base_server"),
    ("prefer", "reward_model_server"),
    ("prefer", "policy_server"),
)


def _placed_on_cluster(tree: dict[str, object]) -> dict[str, object]:
    """Every table with a `command` and no `engine` gets the cluster's."""
    cluster = tree.get("cluster")
    engine = cluster.get("engine") if isinstance(cluster, dict) else None
    if engine is not None:
        for path in _COMMAND_TABLES:
            tree = _with_engine(tree, path, engine)
    return tree


def _with_engine(tree: dict[str, object], path: Sequence[str], engine: object) -> dict[str, object]:
    inner = tree.get(path[0])
    if not isinstance(inner, dict):
        return tree
    if len(path) > 1:
        return {**tree, path[0]: _with_engine(inner, path[1:], engine)}
    if inner.get("command") is None:
        return tree
    return {**tree, path[0]: {"engine": engine, **inner}}
