"""A data set hub on this machine: as much of its protocol as reading a data set takes."""

from __future__ import annotations

import hashlib

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """Serves files of one data set, by their place in its repository; counts what it is asked."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name, self.files = name, files
        self.asked: list[str] = []

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/", self.home)
        app.router.add_get(f"/api/datasets/{self.name}", self.info)
        app.router.add_get(f"/api/datasets/{self.name}/revision/{{revision}}", self.info)
        app.router.add_get(f"/api/datasets/{self.name}/tree/{{revision}}{{place:.*}}", self.tree)
        app.router.add_post(f"/api/datasets/{self.name}/paths-info/{{revision}}", self.paths)
        app.router.add_get(f"/datasets/{self.name}/resolve/{{revision}}/{{place:.+}}", self.file)
        return app

    @web.middleware
    async def _note(self, http: web.Request, handler: object) -> web.StreamResponse:
        self.asked.append(f"{http.method} {http.path}")
        return await handler(http)  # type: ignore[operator,no-any-return]

    async def home(self, _: web.Request) -> web.Response:
        return web.Response(text="a hub")

    async def info(self, _: web.Request) -> web.Response:
        siblings = [{"rfilename": place} for place in self.files]
        told = {"_id": "1", "id": self.name, "sha": COMMIT, "private": False, "tags": []}
        return web.json_response(told | {"downloads": 0, "likes": 0, "siblings": siblings})

    async def tree(self, http: web.Request) -> web.Response:
        under = http.match_info["place"].strip("/")
        return web.json_response(
            [self._entry(place) for place in self.files if place.startswith(under)]
        )

    async def paths(self, http: web.Request) -> web.Response:
        wanted = (await http.post()).getall("paths", [])
        return web.json_response([self._entry(p) for p in self.files if p in wanted])

    async def file(self, http: web.Request) -> web.Response:
        place = http.match_info["place"]
        if place not in self.files:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        digest = hashlib.sha256(self.files[place]).hexdigest()
        return web.Response(
            body=self.files[place], headers={"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
        )

    def _entry(self, place: str) -> dict[str, object]:
        content = self.files[place]
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "oid": oid, "size": len(content), "path": place}
