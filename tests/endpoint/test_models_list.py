"""Lists of models that are missing, paged, or odd: the recipe's model is asked all the same."""

from __future__ import annotations

from typing import Any

import pytest
from http_server import Answer, Request, serving

from feldspar.config import TeacherConfig
from feldspar.errors import TeacherError
from feldspar.models.opening import find_model

NO_HELP: dict[str, Answer] = {
    "missing": Answer({"error": {"message": "Not Found"}}, 404),
    "forbidden": Answer({"error": {"message": "no access"}}, 403),
    "not a method": Answer(b"", 405),
    "null": Answer({"object": "list", "data": None}),
    "a text": Answer("ok"),
    "empty": Answer({"data": []}),
    "odd cards": Answer({"data": [None, 4.5, {"name": "m"}, ["m"], {"id": None}, True]}),
}
USABLE: dict[str, Any] = {
    "bare": [{"id": "m"}],
    "of texts": {"data": ["other", "m"]},
    "with a prefix": {"data": [{"id": "models/m"}]},
    "with a tag": {"data": [{"id": "m:latest"}]},
    "dated": {"data": [{"id": "m-2024-08-06"}]},
}


def test_a_web_page_is_no_server_of_models() -> None:
    page = Answer(b"<html>Open WebUI</html>", headers={"Content-Type": "text/html"})
    with (
        serving(lambda _: page) as server,
        pytest.raises(TeacherError, match=r"it answers text/html, a web page.*ends in /v1"),
    ):
        find_model(TeacherConfig(model="m"), server.url)


def test_a_named_server_is_asked_by_the_environments_proxy_and_our_own_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda _: Answer({"data": ["m"]})) as server:
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
        named = TeacherConfig(endpoint="http://models.invalid/v1")
        assert find_model(named, named.endpoint).name == "m"
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert find_model(TeacherConfig(), server.url).name == "m"


@pytest.mark.parametrize("name", NO_HELP)
def test_a_list_that_is_no_help_is_no_obstacle_to_a_named_model(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda _: NO_HELP[name]) as server:
        model = find_model(TeacherConfig(model="m"), server.url)
        assert model.key == "m"
        assert "it is asked all the same" in caplog.text
        with pytest.raises(TeacherError, match=r"lists no models .*`model`|serves no model"):
            find_model(TeacherConfig(), server.url)


@pytest.mark.parametrize("name", USABLE)
def test_other_forms_of_a_list_are_read(name: str) -> None:
    with serving(lambda _: Answer(USABLE[name])) as server:
        assert find_model(TeacherConfig(model="m"), server.url).key == "m" or name == "dated"
        assert find_model(TeacherConfig(), server.url).key


def test_ids_that_are_numbers_are_read_as_text() -> None:
    with serving(lambda _: Answer({"data": [{"id": 7}]})) as server:
        assert find_model(TeacherConfig(model="7"), server.url).key == "7"


def test_pages_are_turned() -> None:
    def reply(request: Request) -> Answer:
        page = int(request.query.get("after", "page-0").removeprefix("page-"))
        body = {"data": [{"id": f"page-{page + 1}"}], "has_more": page < 4}
        return Answer(body)

    with serving(reply) as server:
        assert find_model(TeacherConfig(model="page-3"), server.url).key == "page-3"
        with pytest.raises(TeacherError, match="no model 'page-9'; there are: page-1, page-2"):
            find_model(TeacherConfig(model="page-9"), server.url)


def test_pages_without_end_come_to_one() -> None:
    with serving(lambda _: Answer({"data": [{"id": "m"}], "has_more": True})) as server:
        assert find_model(TeacherConfig(model="other"), server.url).key == "other"
        assert len(server.requests) == 2


def test_a_redirect_is_refused_by_name() -> None:
    moved = Answer(b"", 307, {"Location": "http://elsewhere/v1/models"})
    with (
        serving(lambda _: moved) as server,
        pytest.raises(TeacherError, match="sends calls on to http://elsewhere/v1/models"),
    ):
        find_model(TeacherConfig(model="m"), server.url)
