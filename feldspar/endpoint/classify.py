"""vLLM's classification of a conversation, which is how it serves a scalar reward model.

    POST /classify  {"model": "rm", "messages": [..., {"role": "assistant", "content": "31."}]}
    {"data": [{"index": 0, "label": "LABEL_0", "probs": [-3.25], "num_classes": 1}], "usage": ...}

The server puts the conversation into the model's own chat template. `probs` holds the model's
outputs as they are only where the activation is off: the sigmoid of one output makes high rewards
equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from feldspar.endpoint.calls import Json
from feldspar.endpoint.protocol import field

PATH = "/classify"
_OPENAI = "/v1"
# Earlier versions of vLLM know the second name alone, and pass over a name that they do not know.
_AS_IT_IS: Json = {"use_activation": False, "activation": False}


def address(url: str) -> str:
    """Where an endpoint classifies: vLLM does so beside `/v1`, not below it.

    >>> address("http://localhost:8000/v1")
    'http://localhost:8000/classify'
    """
    return url.removesuffix(_OPENAI) + PATH


def classify_body(model: str, messages: Sequence[Mapping[str, str]]) -> Json:
    """Of a conversation whose last turn is the answer."""
    return {
        "model": model,
        "messages": list(messages),
        "add_generation_prompt": False,
        "add_special_tokens": False,
        **_AS_IT_IS,
    }


def read_outputs(reply: object) -> list[float] | None:
    """The model's outputs; None where the reply holds none, or what is no number."""
    data = field(reply, "data")
    row = data[0] if isinstance(data, list) and data else None
    values = field(row, "probs")
    if not isinstance(values, list) or not values:
        return None
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or not all(map(math.isfinite, numbers)):
        return None
    return [float(number) for number in numbers]
