"""What a recipe may say: every knob with its meaning, its default and its limits. No torch.

A recipe is a TOML file. Unknown keys are errors. Paths are relative to the recipe's folder or,
where nothing is there, to the working directory; `world:NAME` names a part of the embedded
micro-world (see `WorldConfig`).
"""

from feldspar.config.base import Count as Count
from feldspar.config.base import Fraction as Fraction
from feldspar.config.base import OptionalPath as OptionalPath
from feldspar.config.base import Part as Part
from feldspar.config.base import PathText as PathText
from feldspar.config.base import Positive as Positive
from feldspar.config.base import Share as Share
from feldspar.config.cluster import ClusterConfig as ClusterConfig
from feldspar.config.evaluate import BenchmarkConfig as BenchmarkConfig
from feldspar.config.evaluate import EvaluateConfig as EvaluateConfig
from feldspar.config.evaluate import ExamConfig as ExamConfig
from feldspar.config.evaluate import GeneralConfig as GeneralConfig
from feldspar.config.evaluate import MTBenchConfig as MTBenchConfig
from feldspar.config.evaluate import RetrievalConfig as RetrievalConfig
from feldspar.config.gate import GateConfig as GateConfig
from feldspar.config.generate import BudgetConfig as BudgetConfig
from feldspar.config.generate import Criterion as Criterion
from feldspar.config.generate import GenerateConfig as GenerateConfig
from feldspar.config.generate import KnowledgeConfig as KnowledgeConfig
from feldspar.config.generate import PipelineConfig as PipelineConfig
from feldspar.config.generate import Rendering as Rendering
from feldspar.config.load import lay_settings as lay_settings
from feldspar.config.load import move_paths as move_paths
from feldspar.config.load import place_paths as place_paths
from feldspar.config.load import read_recipe as read_recipe
from feldspar.config.load import world_parts as world_parts
from feldspar.config.mix import BaseReplayConfig as BaseReplayConfig
from feldspar.config.mix import DataConfig as DataConfig
from feldspar.config.mix import MixConfig as MixConfig
from feldspar.config.mix import OwnVoiceConfig as OwnVoiceConfig
from feldspar.config.plan import ArchitectureConfig as ArchitectureConfig
from feldspar.config.plan import ModelSizeConfig as ModelSizeConfig
from feldspar.config.plan import PlanConfig as PlanConfig
from feldspar.config.prefer import PreferConfig as PreferConfig
from feldspar.config.publish import PublishConfig as PublishConfig
from feldspar.config.recipe import Recipe as Recipe
from feldspar.config.recipe import TaxonomyConfig as TaxonomyConfig
from feldspar.config.recipe import WorldConfig as WorldConfig
from feldspar.config.reward_prompts import RewardDomainConfig as RewardDomainConfig
from feldspar.config.reward_prompts import RewardExampleConfig as RewardExampleConfig
from feldspar.config.reward_prompts import RewardPromptsConfig as RewardPromptsConfig
from feldspar.config.serve import ServeConfig as ServeConfig
from feldspar.config.slurm import SlurmConfig as SlurmConfig
from feldspar.config.student import LoraConfig as LoraConfig
from feldspar.config.student import StudentConfig as StudentConfig
from feldspar.config.teacher import ErrorRates as ErrorRates
from feldspar.config.teacher import TeacherConfig as TeacherConfig
from feldspar.config.track import TrackConfig as TrackConfig
from feldspar.config.train import DEFAULT_PHASES as DEFAULT_PHASES
from feldspar.config.train import KlConfig as KlConfig
from feldspar.config.train import LearnConfig as LearnConfig
from feldspar.config.train import MergeConfig as MergeConfig
from feldspar.config.train import PhaseConfig as PhaseConfig
from feldspar.config.train import ReplayConfig as ReplayConfig
from feldspar.config.train import TrainConfig as TrainConfig
from feldspar.config.train import WorkersConfig as WorkersConfig
