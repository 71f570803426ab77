"""Errors as JSON also where no handler is reached: what is not HTTP, a body that is cut off."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from feldspar.serve.protocol import RequestError, write_error


class JsonErrorRunner(web.AppRunner):
    """Runs an app; every error has OpenAI's shape and none is a traceback in the log."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            **self._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        self.logger.debug("a request that cannot be read", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("half of the answer is sent already")
        body = write_error(RequestError(status, (message or "the request cannot be read").strip()))
        response = web.Response(status=status, body=body, content_type="application/json")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        self.logger.debug(*args, **kw)
