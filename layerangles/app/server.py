"""The app and its server, which listens on loopback by default."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dash import Dash
from flask import Flask, Response, abort, request
from waitress import create_server

from layerangles.app import layout
from layerangles.app.callbacks import Session, connect
from layerangles.app.catalogue import Catalogue
from layerangles.app.measuring import Measurer, MeasuringPlan, TokenReaders

# Nothing is loaded from other hosts. Dash needs inline scripts; plotly compiles shaders with eval.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'self' http://localhost:*"
    " http://127.0.0.1:*; base-uri 'none'; form-action 'none'"
)


def create_app(
    catalogue: Catalogue, plan: MeasuringPlan, *, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")
) -> Dash:
    """Build the app.

    Args:
        catalogue: the students that can be chosen; nothing else is read.
        plan: how students are measured on demand.
        hosts: the host names that the app answers to; requests for others are refused.
    """
    server = Flask("layerangles.app", static_folder=None)
    title = ", ".join(source.name for source in catalogue.sources)
    app = Dash(
        "layerangles.app",
        server=server,
        assets_folder=str(Path(__file__).with_name("assets")),
        assets_ignore=r"notebook\.js",
        title="layerangles compare",
        update_title="",
        add_log_handler=False,
    )
    app.layout = layout.layout(title)
    _guard(server, hosts)
    connect(app, Session(catalogue, Measurer(plan), TokenReaders(plan)))
    return app


def listen(app: Dash, host: str, port: int) -> Any:
    """A server bound to this address (port 0: any free port); it answers once its ``run`` is called."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # queued requests need no warning
    return create_server(app.server, host=host, port=port, threads=4, ident=None)


def serve(app: Dash, host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    listen(app, host, port).run()


def _guard(server: Flask, hosts: Sequence[str]) -> None:
    """Refuse requests that other pages in the same browser may send: other host names, other origins."""
    allowed = set(hosts)

    @server.before_request
    def check() -> None:
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if name not in allowed:
            abort(403, description=f"The host {request.host!r} is not one that this app answers to.")
        origin = request.headers.get("Origin")
        if origin is not None and origin.split("://", 1)[-1] != request.host:
            abort(403, description="The request comes from another page.")

    @server.after_request
    def policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response
