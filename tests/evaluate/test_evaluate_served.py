"""A served model's benchmarks are scored as a local one's are, or refused with a reason."""

import pytest
import tiny
from echo_server import EchoServer, serving

from feldspar.config import TeacherConfig
from feldspar.endpoint.endpoint import Access
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.errors import RecipeError, TeacherError
from feldspar.models.local import LocalModel
from feldspar.models.model import CannotScore
from feldspar.models.opening import find_model
from feldspar.student.model import save_checkpoint
from feldspar.student.scoring.score import Tree, score_trees

pytest.importorskip("lm_eval", reason="benchmarks need the extra `eval`")
pytestmark = pytest.mark.filterwarnings("ignore")  # of lm_eval's packages
PAIRS = [("what is red?", " it is red."), ("what is grey? ", "it is blue."), ("greet me", " hello")]


@pytest.fixture(scope="module")
def student():
    return tiny.make_tiny()


def lm_of(model):
    from feldspar.evaluate.benchmarks.served_lm import ServedLM

    return ServedLM(model)


def served(url):
    return lm_of(find_model(TeacherConfig(endpoint=url, max_retries=0), url, who="server"))


class Asked:
    """What lm_eval asks of a model, as much of it as is looked at."""

    def __init__(self, *args):
        self.args = args


def check_log_likelihoods(lm, student):
    said = lm.loglikelihood([Asked(*pair) for pair in PAIRS])
    encode = student.tokenizer.encode
    trees = []
    for context, continuation in PAIRS:
        whole, prompt = encode(context + continuation), encode(context.rstrip())
        assert whole[: len(prompt)] == prompt
        trees.append(Tree(prompt, [whole[len(prompt) :]]))
    for (total, greedy), [wanted] in zip(said, score_trees(student, trees), strict=True):
        assert total == pytest.approx(wanted.total, abs=1e-3)
        assert greedy == wanted.greedy


def test_log_likelihoods_are_those_of_the_model_itself(student):
    server = EchoServer(student.model, student.tokenizer, echoes=True, completes=True)
    with serving(server) as url:
        lm = served(url)
        check_log_likelihoods(lm, student)
        written = lm.generate_until([Asked("what is", {"until": ["?"], "max_gen_toks": 6})])
    assert written == [server.write("what is", 6).split("?")[0]]


def test_a_folder_is_asked_in_the_same_way(student, tmp_path):
    save_checkpoint(student, tmp_path / "toy", phase="base", step=0)
    model = LocalModel(str(tmp_path / "toy"), Access())
    try:
        lm = lm_of(model)
        check_log_likelihoods(lm, student)
        written = lm.generate_until([Asked("what is", {"until": ["?"], "max_gen_toks": 6})])
    finally:
        model.close()
    server = EchoServer(student.model, student.tokenizer, echoes=True, completes=True)
    assert written == [server.write("what is", 6).split("?")[0]]
    assert lm.way == "; served, completions"


@pytest.mark.parametrize("completes", [True, False])
def test_a_server_that_tells_nothing_of_prompts_is_refused_for_choices(student, completes):
    server = EchoServer(student.model, student.tokenizer, echoes=False, completes=completes)
    with serving(server) as url:
        lm = served(url)
        with pytest.raises(RecipeError, match="returns no log-probabilities of prompts"):
            lm.loglikelihood([Asked("a", " b")])
        written = lm.generate_until([Asked("what is", {"until": [], "max_gen_toks": 4})])
    assert lm.way == ("; served, completions" if completes else ", served, chat alone")
    assert written == [server.write("what is", 4)]


def test_a_server_that_is_gone_is_one_clear_line():
    with pytest.raises(TeacherError, match=r"no server answers at http://127.*mend `endpoint`"):
        served("http://127.0.0.1:9/v1")


def test_where_tokens_begin_is_found_from_their_texts_or_not_guessed():
    from feldspar.evaluate.benchmarks.served_lm import token_starts

    def tokens(*texts, starts=()):
        places = starts or [None] * len(texts)
        return [PromptToken(-1.0, t, s, True) for t, s in zip(texts, places, strict=True)]

    # vLLM's way gives texts alone; the first token of a prompt is not among them.
    assert token_starts("what is red?", tokens(" is", " red", "?")) == [4, 7, 11]
    assert token_starts("what is", tokens(" is", starts=[4])) == [4]
    with pytest.raises(CannotScore, match="where the tokens of a prompt begin"):
        token_starts("what is red?", tokens(" is", "\ufffd", "?"))
