"""Leaf to judged samples and exams: prompts, pipelines, filters, funnel."""

from feldspar.generate.calibrate import Reliability, calibrate, check_floor, reliability
from feldspar.generate.estimate import estimate, expected_samples, expected_tokens
from feldspar.generate.exams import make_exams
from feldspar.generate.export import Exported, export_samples
from feldspar.generate.funnel import FUNNEL_FILE, Example, Funnel, LeafFunnel, Reason, read_funnel
from feldspar.generate.probe import Probed, probe
from feldspar.generate.prompting import STAGES, Prompts, Stage, prompt_files
from feldspar.generate.samples import generate_samples

__all__ = [
    "FUNNEL_FILE",
    "STAGES",
    "Example",
    "Exported",
    "Funnel",
    "LeafFunnel",
    "Probed",
    "Prompts",
    "Reason",
    "Reliability",
    "Stage",
    "calibrate",
    "check_floor",
    "estimate",
    "expected_samples",
    "expected_tokens",
    "export_samples",
    "generate_samples",
    "make_exams",
    "probe",
    "prompt_files",
    "read_funnel",
    "reliability",
]
