"""A model of the recipe found: behind URLs, behind a command, or in a folder."""

from __future__ import annotations

from pathlib import Path

from feldspar.config import TeacherConfig
from feldspar.endpoint.endpoint import Access, Endpoint
from feldspar.endpoint.faults import NoAnswers
from feldspar.endpoint.models_list import ListedModel
from feldspar.errors import TeacherError
from feldspar.models.launched import LaunchedModel
from feldspar.models.local import LocalModel
from feldspar.models.served import NotFound, ServedModel, Wanted, find_served, model_key
from feldspar.models.server import Start
from feldspar.progress import SILENT, Progress


def access_of(config: TeacherConfig) -> Access:
    """How the recipe wants a model's servers to be asked."""
    return Access(
        protocol=config.protocol,
        key_variable=config.key_variable,
        timeout_seconds=config.timeout_seconds,
        max_retries=config.max_retries,
        concurrency=config.concurrency,
        max_concurrency=config.max_concurrency,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        parameters=config.parameters,
        is_proxied=not config.is_embedded,
    )


def find_model(
    config: TeacherConfig, endpoint: str, progress: Progress = SILENT, *, who: str = "teacher"
) -> ServedModel:
    """The model behind a URL. Raises TeacherError with the cure where it is not there."""
    wanted = Wanted(
        urls=(endpoint, *config.endpoints), model=config.model, revision=config.revision, who=who
    )
    try:
        return find_served(wanted, access_of(config), progress)
    except NotFound as error:
        raise TeacherError(str(error)) from error
    except NoAnswers as error:
        if error.why:
            raise TeacherError(error.sentence(who)) from error
        raise TeacherError(
            f"no {who} answers {error.place} ({error.reason}); start the server, or mend "
            "`endpoint` in the recipe (a URL that ends in /v1, or `embedded`)"
        ) from error


def known_model(config: TeacherConfig, endpoint: str, name: str, revision: str) -> ServedModel:
    """A model that was found before, at servers that may be gone by now."""
    urls = (endpoint, *config.endpoints)
    return ServedModel(Endpoint(access_of(config), urls, name), ListedModel(name), revision)


def unserved_model(
    config: TeacherConfig, log_folder: Path, role: str, progress: Progress = SILENT
) -> LaunchedModel | LocalModel | None:
    """The model of a `command` or a `folder`, neither of which is begun before the first call; None
    where the recipe names an endpoint.

    What the servers of `role` say goes to `log_folder`. Close it at last: what was started would go
    on until the process ends.
    """
    access = access_of(config)
    if config.folder is not None:
        return LocalModel(config.folder, access)
    if config.command is not None:
        start = Start(
            command=config.command,
            model=config.model or "",
            num_replicas=config.replicas,
            engine=config.engine or "local",
            gpus_each=config.gpus_each,
            nodes_each=config.nodes_each,
            log_folder=log_folder,
            log_name=role,
            seconds=config.start_seconds,
        )
        return LaunchedModel(start, access, config.revision, progress)
    return None


def identity_of(config: TeacherConfig, who: str) -> str:
    """The key of what answers, by name or content and never by address. A server is asked only
    where the recipe names no model. Raises TeacherError where it then does not answer."""
    model = unserved_model(config, Path(), who)
    if model is not None:
        return model.key
    if config.model is not None:
        return model_key(config.model, config.revision, {})
    return find_model(config, config.endpoint, who=who).key
