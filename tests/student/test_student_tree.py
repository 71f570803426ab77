import pytest
import torch
from tiny import make_tiny

from feldspar.errors import TrainingError
from feldspar.student.tree import ContinuationScore, Tree, score_trees


@pytest.fixture(scope="module")
def student():
    return make_tiny()


TREES = [
    Tree(prompt=[5, 9, 11, 40], continuations=[[7, 8], [7], [], [100, 3, 2, 9, 9, 41, 60]]),
    Tree(prompt=[30], continuations=[[12, 13, 14]]),
    Tree(prompt=list(range(2, 90)), continuations=[[4] * 20, [4] * 21, [6]]),
    Tree(prompt=[3, 3], continuations=[]),
]


def plain_score(model, prompt, continuation):
    """One sequence at a time, through transformers alone, in float64 from the logits on."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *continuation]])).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    ids = torch.tensor(continuation, dtype=torch.long)
    total = float(rows.gather(1, ids[:, None]).sum())
    return ContinuationScore(total, len(ids), rows.argmax(-1).tolist() == continuation)


def test_scores_are_those_of_one_sequence_at_a_time(student):
    found = score_trees(student, TREES)
    assert [len(scores) for scores in found] == [4, 1, 3, 0]
    for tree, scores in zip(TREES, found, strict=True):
        for ids, score in zip(tree.continuations, scores, strict=True):
            expected = plain_score(student.model, tree.prompt, ids)
            assert score.total == pytest.approx(expected.total, abs=1e-4 * max(1, len(ids)))
            assert score[1:] == expected[1:]


def test_what_the_model_would_say_is_greedy_until_a_token_is_changed(student):
    prompt, said = [5, 9, 11, 40], []
    for _ in range(5):
        logits = student.model(torch.tensor([[*prompt, *said]])).logits[0, -1]
        said.append(int(logits.argmax()))
    other = [*said[:-1], (said[-1] + 1) % 300]
    (scores,) = score_trees(student, [Tree(prompt, [said, other, []])])
    assert [score.greedy for score in scores] == [True, False, True]


def test_an_empty_prompt_is_refused(student):
    with pytest.raises(TrainingError, match="give it a BOS"):
        score_trees(student, [Tree([], [[1]])])
