"""Published benchmarks: lm_eval's own tasks on local data, and the numbers it gives by hand."""

from pathlib import Path

import hub_files
import pytest
import tiny_run

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.errors import RecipeError, TrainingError
from feldspar.evaluate.benchmarks.run import ask, score_benchmarks
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.benchmarks.selecting import ScoreOnBenchmark
from feldspar.evaluate.benchmarks.tasks import harness_version
from feldspar.records import Checkpoint
from feldspar.runs import read_rows
from feldspar.steps import Workspace
from feldspar.student.model import base_checkpoint

pytest.importorskip("lm_eval", reason="benchmarks need the extra `eval`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # of lm_eval's and its data sets' packages
    pytest.mark.skipif(
        not hub_files.SOURCE.is_dir(), reason="benchmark data lies in shared/, for development"
    ),
]
MODEL = str(tiny_run.SHARED / "data" / "models" / "tinystories-656k")
STUDENT = StudentConfig(base=MODEL, device="cpu")
TASKS = ("arc_challenge", "hellaswag", "winogrande", "gsm8k")
PARITY = (*TASKS, "mmlu_anatomy")
SHOTS = {"arc_challenge": 25, "hellaswag": 10, "winogrande": 5, "gsm8k": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return hub_files.write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def run(configs, here, checkpoint=None, **more):
    named = [("base", checkpoint or base_checkpoint(MODEL))]
    return list(
        score_benchmarks(
            Workspace(folder=here), named, configs, student=STUDENT,
            harness=harness_version(), cache_path=here / "cache", **more,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def hf_model():
    """lm_eval's own Hugging Face model."""
    import torch
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=MODEL, dtype="float32", device="cpu", batch_size=8)
    torch.set_num_threads(1)
    return model


@pytest.fixture(scope="module")
def by_hand(data, hf_model):
    """What lm_eval's own function gives with it, on the first 20 items of each."""
    return evaluate_by_hand(hf_model, [configured(name, data) for name in PARITY], limit=20)


def evaluate_by_hand(model, configs, limit):
    """Without `simple_evaluate`, which also gathers for half a minute what machine this is."""
    import lm_eval

    from feldspar.evaluate.benchmarks.tasks import load_task

    tasks = {config.task: load_task(config.task, config) for config in configs}
    return lm_eval.evaluate(model, tasks, limit=limit, bootstrap_iters=0, log_samples=True)


def configured(name, data, limit=20):
    folder = data["mmlu" if name.startswith("mmlu") else name]
    return BenchmarkConfig(task=name, data=str(folder), limit=limit)


class Recording:
    """An LM, and what it was asked and said."""

    def __init__(self, lm):
        self._lm, self.said = lm, []

    def __getattr__(self, name):
        if name not in ("loglikelihood", "generate_until"):
            return getattr(self._lm, name)

        def ask(requests):
            answers = getattr(self._lm, name)(requests)
            self.said += [(r.doc_id, r.args, a) for r, a in zip(requests, answers, strict=True)]
            return answers

        return ask


@pytest.fixture(scope="module")
def lm():
    from feldspar.evaluate.benchmarks.student_lm import StudentLM

    return StudentLM(MODEL, STUDENT, chat_template=False)


@pytest.mark.parametrize("name", PARITY)
def test_the_numbers_are_those_of_lm_eval_by_hand(name, data, lm, by_hand):
    recording = Recording(lm)
    asked = ask(recording, name, configured(name, data))
    assert by_hand["n-shot"][name] == asked.summary["num_fewshot"] == SHOTS.get(name, 5)
    metric, _, filtered = asked.summary["metric"].partition(" (")
    key = f"{metric},{filtered.rstrip(')') or 'none'}"
    assert asked.summary["value"] == by_hand["results"][name][key]
    samples = {sample["doc_id"]: sample for sample in by_hand["samples"][name]}
    assert len(asked.items) == len(samples) == 20
    for doc_id, args, said in recording.said:
        sample = samples[doc_id]
        # The same prompt, to the letter, and the same answer to it.
        (wanted,) = sample["resps"][sample["arguments"].index(args)]
        if isinstance(said, str):
            assert said == wanted
        else:
            assert said[0] == pytest.approx(wanted[0], abs=1e-4)
            assert said[1] == wanted[1]


def test_unlimited_gives_the_same_numbers_too(data, lm, hf_model):
    config = configured("mmlu_anatomy", data, limit=None)
    theirs = evaluate_by_hand(hf_model, [config], limit=None)
    asked = ask(lm, config.task, config)
    assert len(asked.items) == 50
    assert asked.summary["value"] == theirs["results"][config.task]["acc,none"]
    right = [sample["acc"] for sample in theirs["samples"][config.task]]
    assert [item.value for item in asked.items] == right


def test_an_answer_that_grows_together_with_its_context_is_scored_by_its_last_token(lm):
    """Together these have no more tokens than the context: lm_eval's own model gives up on it."""
    context = (
        "Sookie roasted a turkey and served it with potatoes instead of carrots, because "
        "everyone in her family would have hated the carrots"
    )
    whole = lm.tok_encode(f"{context} .")
    assert len(whole) <= len(lm.tok_encode(context))
    assert lm._encode_pair(context, " .") == (whole[:-1], whole[-1:])


def test_five_benchmarks_with_published_settings_and_a_second_run_asks_nothing(data, tmp_path):
    configs = [BenchmarkConfig(task=task, data=str(data[task]), limit=4) for task in TASKS]
    configs.append(BenchmarkConfig(task="mmlu", data=str(data["mmlu"]), limit=1))
    scores = run(configs, tmp_path)
    found = {score.exam: score for score in scores}
    assert [found[task].metric for task in TASKS] == [
        "acc_norm", "acc_norm", "acc", "exact_match (strict-match)"
    ]  # fmt: skip
    for task, shots in (SHOTS | {"mmlu": 5}).items():
        assert found[task].settings.startswith(f"{shots}-shot, no chat template, first ")
    assert found["mmlu"].num_items == 57
    assert found["mmlu"].value == pytest.approx(found["mmlu: mean of tasks"].value)
    assert sum(exam.startswith("mmlu: ") for exam in found) == 58
    items = list(read_rows(Path(found["arc_challenge"].answers_path), BenchmarkItem))
    assert sum(item.value for item in items) == 4 * found["arc_challenge"].value
    assert all(item.question.startswith("Question: ") for item in items)
    # The model is gone, and nothing is asked of it.
    gone = Checkpoint(path=str(tmp_path / "gone"), digest=base_checkpoint(MODEL).digest)
    assert run(configs, tmp_path, gone) == scores


def test_with_the_chat_template_other_prompts_are_asked_and_it_is_recorded(data, tmp_path):
    config = BenchmarkConfig(
        task="mmlu_anatomy", data=str(data["mmlu"]), limit=4, chat_template=True
    )
    (score,) = run([config], tmp_path)
    assert score.settings.startswith("5-shot, chat template, first 4 items")


def test_checkpoints_are_chosen_by_the_validation_part(data, tmp_path):
    config = BenchmarkConfig(task="mmlu_anatomy", data=str(data["mmlu"]))
    cache_path = tmp_path / "cache"
    values = ScoreOnBenchmark(config, student=STUDENT, cache_path=cache_path).values(
        base_checkpoint(MODEL)
    )
    validation = [row for row in hub_files.rows("mmlu/val.jsonl") if row["subject"] == "anatomy"]
    items = list(read_rows(next(cache_path.rglob("items.jsonl.zst")), BenchmarkItem))
    asked = " ".join(item.question for item in items)
    assert values == {item.id: item.value for item in items}
    assert len(values) == len(validation)
    assert all(row["question"].strip() in asked for row in validation)


def test_what_is_reported_chooses_no_checkpoint(data, tmp_path):
    for task in ("winogrande", "gsm8k", "hellaswag"):
        with pytest.raises(RecipeError, match=f"{task}' has no validation part apart from"):
            ScoreOnBenchmark(configured(task, data), student=STUDENT, cache_path=tmp_path)


def test_what_cannot_be_is_one_clear_line(data, tmp_path):
    with pytest.raises(RecipeError, match=r"no task 'arc_chalenge' \(perhaps 'arc_challenge'\)"):
        run([BenchmarkConfig(task="arc_chalenge")], tmp_path)
    with pytest.raises(RecipeError, match="holds none of train"):
        run([BenchmarkConfig(task="gsm8k", data=str(tmp_path))], tmp_path)
    with pytest.raises(RecipeError, match="not the columns"):
        run([BenchmarkConfig(task="arc_challenge", data=str(data["gsm8k"]))], tmp_path)
    config = BenchmarkConfig(task="gsm8k", data=str(data["gsm8k"]), limit=1)
    nothing = Checkpoint(path=str(tmp_path), digest="nothing")
    with pytest.raises(TrainingError, match=r"no config\.json"):
        run([config], tmp_path, nothing)
