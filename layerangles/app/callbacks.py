"""What the browser sends becomes a view, and the page of that view is what it gets."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from layerangles.app import layout
from layerangles.app.resolved import Page
from layerangles.app.session import Session
from layerangles.app.view import View
from layerangles.errors import InputError
from layerangles.figures import caption, spread, theme, versus, write_html, write_image
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.results.variables import Aggregation

_CHOICES = ("first-strategy", "first-seed", "first-step", "second-strategy", "second-seed", "second-step")
_NARROWEST, _WIDE, _MOST_OF_HISTOGRAM = 300, 1160, 640  # of figures, pixels
_SWITCHES = ("way", "null", "aggregation", "tower", "low", "high")

_LINK = """function(query) {
    if (query) { window.history.replaceState(null, "", window.location.pathname + query); }
    return query;
}"""
_COPY = """async function(n) {
    if (!n) { return "Copy link"; }
    try { await navigator.clipboard.writeText(window.location.href); return "Copied"; }
    catch (error) { return "Copy it from the address bar"; }
}"""
_PLAY = """function(n) {
    const plays = Boolean(n % 2);
    return [!plays, plays ? "❚❚ Pause" : "▶ Play"];
}"""
# As wide as the page: in steps, so that a window that is being drawn larger asks rarely.
_WIDTH = """function(_, before) {
    const now = 20 * Math.floor((Math.min(document.documentElement.clientWidth, 1180) - 24) / 20);
    return now === before ? window.dash_clientside.no_update : now;
}"""


def connect(app: Dash, session: Session) -> None:
    """Make the page's elements act."""
    _show(app, session)
    _watch(app, session)
    _measure(app, session)
    _tokens(app, session)
    _export(app, session)
    app.clientside_callback(_LINK, Output("address", "data"), Input("query", "data"))
    app.clientside_callback(_COPY, Output("copy", "children"), Input("copy", "n_clicks"))
    app.clientside_callback(_PLAY, Output("tick", "disabled"), Output("play", "children"), Input("play", "n_clicks"))
    app.clientside_callback(_WIDTH, Output("width", "data"), Input("look", "n_intervals"), State("width", "data"))


def _show(app: Dash, session: Session) -> None:
    names = [*_CHOICES, "step", "layer", *_SWITCHES]

    def show(moved: list[Any], events: dict[str, Any], query: str | None) -> dict[str, Any]:
        if events["width"] is None:  # the page is still being laid out, and says its width next
            raise PreventUpdate
        given = dict(zip(names, moved, strict=True))
        trigger = str(ctx.triggered_id)
        view = View.from_query(query or events["search"] or "")
        if query is not None and trigger in names:
            view = _chosen(view, given, trigger, session)
        elif query is not None and trigger == "tick":
            steps = session.page(view).steps
            at = steps.index(view.step) if view.step in steps else -1
            view = replace(view, step=steps[(at + 1) % len(steps)] if steps else None)
        elif query is not None and trigger == "maps" and events["click"]:
            low, high = sorted(int(events["click"]["points"][0][axis]) for axis in ("x", "y"))
            view = view if low == high else replace(view, low=low, high=high)
        return _rendered(session.page(view), session, events["width"])

    app.callback(
        output={
            "choices": [Output(name, "options") for name in (*_CHOICES, *_SWITCHES)],
            "values": [Output(name, "value") for name in names],
            "sliders": [Output(name, attribute) for name in ("step", "layer") for attribute in ("max", "marks")],
            "hidden": [Output(name, "hidden") for name in ("course", "depth", "tower-field", "pair")],
            "maps": Output("maps", "figure"),
            "spread": Output("spread", "figure"),
            "caption": Output("caption", "children"),
            "scores": Output("scores", "children"),
            "query": Output("query", "data"),
        },
        inputs={
            "moved": [Input(name, "value") for name in names],
            "events": {
                "search": Input("location", "search"),
                "version": Input("version", "data"),
                "width": Input("width", "data"),
                "tick": Input("tick", "n_intervals"),
                "click": Input("maps", "clickData"),
            },
        },
        state={"query": State("query", "data")},
    )(show)


def _chosen(view: View, given: dict[str, Any], trigger: str, session: Session) -> View:
    """The view after a control was moved."""
    page, snapshot = session.page(view), session.catalogue.read()
    value = given[trigger]
    side, _, what = trigger.partition("-")
    if what in ("strategy", "seed"):
        key = snapshot.key(given[f"{side}-strategy"], given[f"{side}-seed"])
        chosen: dict[str, Any] = {} if key is None else {side: key}
        return replace(view, **chosen)
    if what == "step":
        fixed: dict[str, Any] = {f"{side}_step": None if value == layout.FOLLOWS else value}
        return replace(view, **fixed)
    # Sliders count through what there is; an excess is known of the mean angle alone.
    changes: dict[str, Any] = {trigger: value}
    if trigger in ("step", "layer"):
        there = page.steps if trigger == "step" else page.layers
        changes = {trigger: there[int(value)]} if int(value) < len(there) else {}
    elif trigger == "null":
        changes = {"null": None} if value == layout.RAW else {"null": value, "aggregation": "mean"}
    elif trigger == "aggregation" and value != "mean":
        changes["null"] = None
    return replace(view, **changes)


def _rendered(page: Page, session: Session, width: int) -> dict[str, Any]:
    view, snapshot = page.view, session.catalogue.read()
    choices: list[list[dict[str, Any]]] = []
    values: list[Any] = []
    for side, fixed in zip(page.sides, (view.first_step, view.second_step), strict=True):
        entry = side.entry
        steps = entry.steps if entry else []
        choices += [
            layout.options(snapshot.strategies),
            layout.options(snapshot.seeds(entry.strategy) if entry else []),
            layout.options([layout.FOLLOWS, *steps]),
        ]
        follows = layout.FOLLOWS if fixed is None else fixed
        values += [entry.strategy if entry else None, entry.student.seed if entry else None, follows]
    choices += [
        layout.options(snapshot.ways),
        layout.nulls(page.nulls),
        layout.aggregations(),
        layout.options(page.towers),
        layout.options(page.teacher_layers),
        layout.options(page.teacher_layers),
    ]
    values += [
        page.steps.index(view.step) if view.step in page.steps else max(0, len(page.steps) - 1),
        page.layers.index(view.layer) if view.layer in page.layers else 0,
        view.way,
        view.null or layout.RAW,
        view.aggregation,
        view.tower,
        view.low,
        view.high,
    ]
    maps = maps_of(page, _fitting(width))
    sliders = [x for there in (page.steps, page.layers) for x in (max(1, len(there) - 1), layout.marks(there))]
    return {
        "choices": choices,
        "values": values,
        "sliders": sliders,
        "hidden": [len(of) < 2 for of in (page.steps, page.layers, page.towers, page.teacher_layers)],
        "maps": maps,
        "spread": spread_of(page, _fitting(min(width, _MOST_OF_HISTOGRAM))),
        "caption": caption(maps),
        "scores": layout.standings(snapshot, page),
        "query": view.query(),
    }


def _fitting(width: int) -> Theme:
    """Figures of this width, laid out as on paper: what their titles would say stands beside them."""
    width = min(max(width, _NARROWEST), _WIDE)
    larger = 1 if width > 600 else 0
    sizes = theme("paper")
    return replace(
        sizes, width=width, panel=11 + larger, text=11 + larger, tick=10 + larger, value=10 + larger, scale=0.8
    )


def maps_of(page: Page, of: Theme = SCREEN) -> go.Figure:
    """The heat maps of a page."""
    view = page.view
    aggregation: Aggregation = view.aggregation or "mean"  # type: ignore[assignment]  # the page has chosen one
    first, second = (side.sight for side in page.sides)
    return versus(first, second, aggregation=aggregation, null=view.null, notes=page.notes, theme=of)


def spread_of(page: Page, of: Theme = SCREEN) -> go.Figure:
    """The histograms of a page's pair of teacher layers."""
    low, high = page.view.low, page.view.high
    return spread(
        page.first.sight, page.second.sight, -1 if low is None else low, -1 if high is None else high, theme=of
    )


def _watch(app: Dash, session: Session) -> None:
    def watch(_n: int, query: str | None, _wanted: Any, version: str | None) -> tuple[Any, ...]:
        if query is None:
            raise PreventUpdate
        now = f"{hash(session.catalogue.version())} {session.measurer.n_done}"
        page = session.page(View.from_query(query))
        way = page.view.way or ""
        keys = dict.fromkeys(side.entry.key for side in page.sides if side.entry is not None)
        progress = [p for key in keys if (p := session.measurer.progress(key, way)) is not None]
        offered = layout.offer(page, progress)
        return (no_update if now == version else now), layout.under_way(progress), offered, not offered

    app.callback(
        Output("version", "data"),
        Output("progress", "children"),
        Output("measure", "children"),
        Output("measure", "hidden"),
        Input("look", "n_intervals"),
        Input("query", "data"),
        Input("wanted", "data"),
        State("version", "data"),
    )(watch)


def _measure(app: Dash, session: Session) -> None:
    def measure(n_clicks: int, query: str | None) -> int:
        if not n_clicks or query is None:
            raise PreventUpdate
        page = session.page(View.from_query(query))
        wanted = {side.entry.key: side.entry for side in page.sides if side.can_be_measured and side.entry}
        session.measurer.ask(list(wanted.values()), page.view.way or "")
        return n_clicks

    app.callback(Output("wanted", "data"), Input("measure", "n_clicks"), State("query", "data"))(measure)


def _tokens(app: Dash, session: Session) -> None:
    def tokens(query: str | None, _version: Any) -> list[Any]:
        if query is None:
            raise PreventUpdate
        page = session.page(View.from_query(query))
        parts: list[Any] = []
        for side in page.sides:
            try:
                parts.append(session.readers.sentences(side, page))
            except InputError as error:
                parts.append(html.Div([html.H3(side.sight.label), html.P(f"No tokens: {error}")], className="texts"))
        return parts

    app.callback(Output("tokens", "children"), Input("query", "data"), Input("version", "data"))(tokens)


def _export(app: Dash, session: Session) -> None:
    def export(_clicks: list[int], query: str | None) -> tuple[Any, str]:
        name = str(ctx.triggered_id).removeprefix("export-")
        if query is None or name not in layout.FORMATS:
            raise PreventUpdate
        page = session.page(View.from_query(query))
        try:
            content = exported(page, name)
        except InputError as error:
            return no_update, str(error)
        return dcc.send_bytes(content, f"layerangles-compare.{name}"), ""

    app.callback(
        output=(Output("download", "data"), Output("said", "children")),
        inputs={"_clicks": [Input(f"export-{name}", "n_clicks") for name in layout.FORMATS]},
        state={"query": State("query", "data")},
        running=[(Output(f"export-{name}", "disabled"), True, False) for name in layout.FORMATS],
        prevent_initial_call=True,
    )(export)


def exported(page: Page, name: str) -> bytes:
    """A page as a file: its heat maps, for a screen or as ``pdf`` for both columns of a paper; as ``csv`` its numbers.

    Raises:
        InputError: an image, and there is no Chrome to make it.
    """
    if name == "csv":
        return page.table().to_csv(index=False).encode()
    figure = maps_of(page, theme("paper", columns=2) if name == "pdf" else SCREEN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"compare.{name}"
        write = write_html if name == "html" else write_image
        return write(figure, path).read_bytes()
