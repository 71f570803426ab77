"""What a recipe may say: every knob with its meaning, its default and its limits. No torch.

A recipe is a TOML file. Unknown keys are errors. Paths are relative to the recipe's folder or,
where nothing is there, to the working directory; `world:NAME` names a part of the embedded
micro-world (see `WorldConfig`).
"""

from feldspar.config.asking import BudgetConfig as BudgetConfig
from feldspar.config.asking import Criterion as Criterion
from feldspar.config.asking import ErrorRates as ErrorRates
from feldspar.config.asking import GenerateConfig as GenerateConfig
from feldspar.config.asking import KnowledgeConfig as KnowledgeConfig
from feldspar.config.asking import PipelineConfig as PipelineConfig
from feldspar.config.asking import Rendering as Rendering
from feldspar.config.asking import TeacherConfig as TeacherConfig
from feldspar.config.part import Count as Count
from feldspar.config.part import Fraction as Fraction
from feldspar.config.part import OptionalPath as OptionalPath
from feldspar.config.part import Part as Part
from feldspar.config.part import PathText as PathText
from feldspar.config.part import Positive as Positive
from feldspar.config.part import Share as Share
from feldspar.config.planning import ArchitectureConfig as ArchitectureConfig
from feldspar.config.planning import PlanConfig as PlanConfig
from feldspar.config.reading import is_path as is_path
from feldspar.config.reading import lay_settings as lay_settings
from feldspar.config.reading import move_paths as move_paths
from feldspar.config.reading import place_paths as place_paths
from feldspar.config.reading import read_recipe as read_recipe
from feldspar.config.reading import world_parts as world_parts
from feldspar.config.recipe import Recipe as Recipe
from feldspar.config.recipe import TaxonomyConfig as TaxonomyConfig
from feldspar.config.recipe import WorldConfig as WorldConfig
from feldspar.config.scoring import BenchmarkConfig as BenchmarkConfig
from feldspar.config.scoring import EvaluateConfig as EvaluateConfig
from feldspar.config.scoring import ExamConfig as ExamConfig
from feldspar.config.scoring import MTBenchConfig as MTBenchConfig
from feldspar.config.scoring import PolicyServerConfig as PolicyServerConfig
from feldspar.config.scoring import PreferConfig as PreferConfig
from feldspar.config.scoring import RewardServerConfig as RewardServerConfig
from feldspar.config.serving import PublishConfig as PublishConfig
from feldspar.config.serving import ServeConfig as ServeConfig
from feldspar.config.tracking import TrackConfig as TrackConfig
from feldspar.config.training import DEFAULT_PHASES as DEFAULT_PHASES
from feldspar.config.training import BaseReplayConfig as BaseReplayConfig
from feldspar.config.training import DataConfig as DataConfig
from feldspar.config.training import LearnConfig as LearnConfig
from feldspar.config.training import LoraConfig as LoraConfig
from feldspar.config.training import MixConfig as MixConfig
from feldspar.config.training import PhaseConfig as PhaseConfig
from feldspar.config.training import ReplayConfig as ReplayConfig
from feldspar.config.training import StudentConfig as StudentConfig
from feldspar.config.training import TrainConfig as TrainConfig
