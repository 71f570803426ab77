"""A server's model is scored as a local one is, or refused with a reason."""

import pytest
from echo_server import EchoServer, serving
from student import tiny

from feldspar.config import TeacherConfig
from feldspar.errors import RecipeError, TeacherError
from feldspar.evaluate.benchmarks.server import find_served
from feldspar.student.scoring.score import Tree, score_trees

pytest.importorskip("lm_eval", reason="benchmarks need the extra `eval`")
pytestmark = pytest.mark.filterwarnings("ignore")  # of lm_eval's packages
PAIRS = [("what is red?", " it is red."), ("what is grey? ", "it is blue."), ("greet me", " hello")]


@pytest.fixture(scope="module")
def student():
    return tiny.make_tiny()


def served(student, url, **more):
    return find_served(TeacherConfig(endpoint=url, max_retries=0, **more))


class Asked:
    """What lm_eval asks of a model, as much of it as is looked at."""

    def __init__(self, *args):
        self.args = args


def test_log_likelihoods_are_those_of_the_model_itself(student):
    from feldspar.evaluate.benchmarks.served_model import ServedLM

    server = EchoServer(student.model, student.tokenizer, echoes=True, completes=True)
    with serving(server) as url:
        lm = ServedLM(served(student, url), chat_template=False)
        said = lm.loglikelihood([Asked(*pair) for pair in PAIRS])
        written = lm.generate_until([Asked("what is", {"until": ["?"], "max_gen_toks": 6})])
    encode = student.tokenizer.encode
    trees = []
    for context, continuation in PAIRS:
        whole, prompt = encode(context + continuation), encode(context.rstrip())
        assert whole[: len(prompt)] == prompt
        trees.append(Tree(prompt, [whole[len(prompt) :]]))
    for (total, greedy), [wanted] in zip(said, score_trees(student, trees), strict=True):
        assert total == pytest.approx(wanted.total, abs=1e-3)
        assert greedy == wanted.greedy
    assert written == [server.write("what is", 6).split("?")[0]]


@pytest.mark.parametrize("completes", [True, False])
def test_a_server_that_tells_nothing_of_prompts_is_refused_for_choices(student, completes):
    from feldspar.evaluate.benchmarks.served_model import ServedLM

    server = EchoServer(student.model, student.tokenizer, echoes=False, completes=completes)
    with serving(server) as url:
        found = served(student, url)
        assert found.settings == ("; served, completions" if completes else ", served, chat alone")
        lm = ServedLM(found, chat_template=False)
        with pytest.raises(RecipeError, match="tells no log-probabilities of prompts"):
            lm.loglikelihood([Asked("a", " b")])
        written = lm.generate_until([Asked("what is", {"until": [], "max_gen_toks": 4})])
    assert written == [server.write("what is", 4)]


def test_a_server_that_is_gone_is_one_clear_line(student):
    with pytest.raises(TeacherError, match=r"no model is served at http://127.*mend evaluate"):
        served(student, "http://127.0.0.1:9/v1")
