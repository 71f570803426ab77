"""Leaf to judged samples and exams: prompts, pipelines, filters, funnel."""

from feldspar.generate.calibrate import (
    CALIBRATION_STEP,
    Reliability,
    calibrate,
    check_floor,
    reliability,
)
from feldspar.generate.draft import Draft, Rejected, SampleRequest
from feldspar.generate.estimate import estimate, expected_samples, expected_texts, expected_tokens
from feldspar.generate.exams import LEAF_EXAMS_STEP, make_exams
from feldspar.generate.export import Exported, export_samples
from feldspar.generate.funnel import FUNNEL_FILE, Example, Funnel, LeafFunnel, Reason, read_funnel
from feldspar.generate.preview import LeafPreview, PreviewedSample, preview_leaves
from feldspar.generate.probe import Probed, probe
from feldspar.generate.prompting import Prompts, asking_files
from feldspar.generate.requests import num_exam_items
from feldspar.generate.reviewed import (
    Disagreement,
    JudgeAndPeople,
    judge_and_people,
    review_samples,
    reviews_of_run,
)
from feldspar.generate.samples import SAMPLES_STEP, generate_samples
from feldspar.generate.stages import STAGES, Stage, StageName
from feldspar.generate.stand_in import Volume, foresee_volume
from feldspar.generate.writers import Writers

__all__ = [
    "CALIBRATION_STEP",
    "FUNNEL_FILE",
    "LEAF_EXAMS_STEP",
    "SAMPLES_STEP",
    "STAGES",
    "Disagreement",
    "Draft",
    "Example",
    "Exported",
    "Funnel",
    "JudgeAndPeople",
    "LeafFunnel",
    "LeafPreview",
    "PreviewedSample",
    "Probed",
    "Prompts",
    "Reason",
    "Rejected",
    "Reliability",
    "SampleRequest",
    "Stage",
    "StageName",
    "Volume",
    "Writers",
    "asking_files",
    "calibrate",
    "check_floor",
    "estimate",
    "expected_samples",
    "expected_texts",
    "expected_tokens",
    "export_samples",
    "foresee_volume",
    "generate_samples",
    "judge_and_people",
    "make_exams",
    "num_exam_items",
    "preview_leaves",
    "probe",
    "read_funnel",
    "reliability",
    "review_samples",
    "reviews_of_run",
]
