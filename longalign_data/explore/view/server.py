"""The explorer: pages over DuckDB, made here whole, with no program in them.

Only this machine can ask (the socket is bound to 127.0.0.1, and a request must name it as its host), there is nothing but
GET, and no page may load, run or send anything: see `POLICY`. The state of a page is its address, so it can be kept and
sent to a colleague who has the same build.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from longalign_data.errors import BuildError, UserError
from longalign_data.explore.figures import collect
from longalign_data.explore.pages.sample import Whole, whole_sample
from longalign_data.explore.pages.templates import BASE_CSS, environment
from longalign_data.explore.pages.text import blocks
from longalign_data.explore.recorded import manifest_of
from longalign_data.explore.report.page import provenance
from longalign_data.explore.sql import connect
from longalign_data.explore.view.listing import (
    DOCUMENTS,
    REJECTS,
    Columns,
    asked,
    choices,
    rows_of,
    sample_columns,
)
from longalign_data.shards.folder import BuildFolder
from longalign_data.sources.extras import extra

if TYPE_CHECKING:
    import duckdb
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HOSTS = ["127.0.0.1", "localhost"]


def serve(build: BuildFolder, port: int, *, on_start: Callable[[str], None]) -> None:
    """Serves a build until Ctrl-C; `on_start` is told the address once it answers. Raises UserError for a port that is
    taken, and MissingExtraError when the packages of the extra `look` are not installed."""
    uvicorn = extra("uvicorn", package="uvicorn", extra="look", purpose="the explorer")
    app = application(build)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        # From here on who connects waits for an answer, so that the address can be told.
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(f"port {port} cannot be listened to: {error.strerror}; choose another with --port") from None
    # Ctrl-C is how it is meant to end.
    with listener, contextlib.suppress(KeyboardInterrupt):
        on_start(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def application(build: BuildFolder) -> "Starlette":
    """The pages of a build. Raises BuildError when a shard is torn, and MissingExtraError as `serve` does."""
    starlette = extra("starlette.applications", package="starlette", extra="look", purpose="the explorer")
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    pages = _Pages(build)
    app: Starlette = starlette.Starlette(
        routes=[
            Route("/", pages.samples, methods=["GET"]),
            Route("/chats", pages.chats, methods=["GET"]),
            Route("/documents", pages.documents, methods=["GET"]),
            Route("/rejects", pages.rejects, methods=["GET"]),
            Route("/sample/{sample_id}", pages.sample, methods=["GET"]),
            Route("/build", pages.overview, methods=["GET"]),
            Route("/style.css", pages.style, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={404: pages.missing, BuildError: pages.damaged},
    )
    return app


class _Pages:
    """Every page, on one connection a thread. Starlette runs plain functions on threads of its own."""

    def __init__(self, build: BuildFolder) -> None:
        self._build = build
        self._templates = environment(HERE, purpose="the explorer")
        self._templates.globals["address"] = _address
        manifest = manifest_of(build)
        self._name = f"{manifest.get('name', build.root.parent.name)} {manifest.get('version', build.root.name)}"
        self._connection = connect(build)
        self._threads = threading.local()
        self._columns: dict[str, Columns] = {"documents": DOCUMENTS, "rejects": REJECTS}
        self._choices: dict[str, dict[str, list[str]]] = {}
        self._style = BASE_CSS.read_text(encoding="utf-8") + (HERE / "view.css").read_text(encoding="utf-8")

    def samples(self, request: "Request") -> "Response":
        return self._list(request, "samples", "sample_id", sort="sample_id")

    def chats(self, request: "Request") -> "Response":
        return self._list(request, "chats", "sample_id", sort="sample_id")

    def documents(self, request: "Request") -> "Response":
        return self._list(request, "documents", "doc_id", sort="doc_id")

    def rejects(self, request: "Request") -> "Response":
        return self._list(request, "rejects", None, sort="stage")

    def _list(self, request: "Request", table: str, key: str | None, *, sort: str) -> "Response":
        connection = self._own_connection()
        if table not in self._columns:
            self._columns[table] = sample_columns(connection, table)
        columns = self._columns[table]
        if table not in self._choices:
            self._choices[table] = choices(connection, table, columns)
        wish = asked(columns, dict(request.query_params), sort=sort)
        page = rows_of(connection, table, key, columns, wish)
        shown = [name for name, column in columns.items() if not column.hidden]
        return self._page(
            "list.html",
            table=table,
            columns=columns,
            shown=[*shown, wish.sort] if columns[wish.sort].hidden and wish.sort != key else shown,
            choices=self._choices[table],
            more_open=any(columns[name].hidden for name in wish.filters),
            wish=wish,
            page=page,
            path=request.url.path,
            query=dict(wish.filters)
            | ({"sort": f"{'-' * wish.falling}{wish.sort}"} if wish.falling or wish.sort != sort else {}),
        )

    def sample(self, request: "Request") -> "Response":
        connection = self._own_connection()
        sample_id = request.path_params["sample_id"]
        for table in ("samples", "chats"):
            found = whole_sample(connection, sample_id, table=table)
            if found is not None:
                return self._page("sample.html", **_sample_page(found))
        return self.missing(request, UserError(f"no sample is called {sample_id!r}"))

    def overview(self, request: "Request") -> "Response":
        del request
        return self._page("build.html", stats=collect(self._build), recipe=manifest_of(self._build).get("recipe", ""))

    def style(self, request: "Request") -> "Response":
        from starlette.responses import Response

        del request
        return Response(self._style, media_type="text/css", headers=HEADERS)

    def missing(self, request: "Request", error: Exception) -> "Response":
        return self._page(
            "nothing.html",
            status=404,
            words=str(error) if isinstance(error, UserError) else f"no page {request.url.path!r}",
        )

    def damaged(self, request: "Request", error: Exception) -> "Response":
        del request
        return self._page("nothing.html", status=500, words=str(error))

    def _own_connection(self) -> "duckdb.DuckDBPyConnection":
        """A connection may serve one thread at a time."""
        if not hasattr(self._threads, "connection"):
            self._threads.connection = self._connection.cursor()
        found: duckdb.DuckDBPyConnection = self._threads.connection
        return found

    def _page(self, template: str, *, status: int = 200, **values: Any) -> "Response":
        from starlette.responses import HTMLResponse

        html = self._templates.get_template(template).render(build=self._name, **values)
        return HTMLResponse(html, status_code=status, headers=HEADERS)


def _sample_page(whole: Whole) -> Mapping[str, Any]:
    return {
        "whole": whole,
        "sample": whole.sample,
        "documents": [
            {
                "doc_id": document.doc_id,
                "facts": document.facts,
                "blocks": blocks(document.text, document.evidence),
                "places": [
                    (number, (start / max(1, len(document.text))))
                    for number, (start, _) in enumerate(sorted(set(document.evidence)), 1)
                ],
            }
            for document in whole.documents
        ],
        "provenance": list(provenance(whole)),
        "training": whole.training,
    }


def _address(path: str, query: Mapping[str, Any], **changes: Any) -> str:
    """A page with some of its query changed; None takes a part out."""
    left = {name: value for name, value in (dict(query) | changes).items() if value is not None}
    return f"{path}?{urlencode(left)}" if left else path
