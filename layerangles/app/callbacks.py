"""Dash callbacks: requests of the browser become views, and resolved views fill the page."""

from dataclasses import dataclass, replace
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from layerangles.app import layout
from layerangles.app.catalogue import Catalogue
from layerangles.app.measuring import Measurer, TokenReaders
from layerangles.app.view_figures import exported, fitting_theme, maps_of, spread_of
from layerangles.app.views import ResolvedView, ViewRequest, resolve
from layerangles.errors import InputError
from layerangles.figures import caption

_CHOICES = ("first-strategy", "first-seed", "first-step", "second-strategy", "second-seed", "second-step")
_MOST_OF_HISTOGRAM = 640  # pixels
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
# The width of the page, in steps of 20 pixels so that resizing a window sends few requests.
_WIDTH = """function(_, before) {
    const now = 20 * Math.floor((Math.min(document.documentElement.clientWidth, 1180) - 24) / 20);
    return now === before ? window.dash_clientside.no_update : now;
}"""


@dataclass(frozen=True)
class Session:
    """State shared by the callbacks: the catalogue, the measurer, and the readers of single tokens."""

    catalogue: Catalogue
    measurer: Measurer
    readers: TokenReaders

    def page(self, view: ViewRequest) -> ResolvedView:
        """Resolve a view against the catalogue as it is now."""
        return resolve(view, self.catalogue.read(), self.measurer.unkept)


def connect(app: Dash, session: Session) -> None:
    """Register all callbacks."""
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
        if events["width"] is None:  # the page reports its width after layout
            raise PreventUpdate
        given = dict(zip(names, moved, strict=True))
        trigger = str(ctx.triggered_id)
        view = ViewRequest.from_query(query or events["search"] or "")
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


def _chosen(view: ViewRequest, given: dict[str, Any], trigger: str, session: Session) -> ViewRequest:
    """The view after a control was changed."""
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
    # Sliders count positions; an excess exists for the mean angle alone.
    changes: dict[str, Any] = {trigger: value}
    if trigger in ("step", "layer"):
        there = page.steps if trigger == "step" else page.layers
        changes = {trigger: there[int(value)]} if int(value) < len(there) else {}
    elif trigger == "null":
        changes = {"null": None} if value == layout.RAW else {"null": value, "aggregation": "mean"}
    elif trigger == "aggregation" and value != "mean":
        changes["null"] = None
    return replace(view, **changes)


def _rendered(page: ResolvedView, session: Session, width: int) -> dict[str, Any]:
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
    maps = maps_of(page, fitting_theme(width))
    sliders = [x for there in (page.steps, page.layers) for x in (max(1, len(there) - 1), layout.marks(there))]
    return {
        "choices": choices,
        "values": values,
        "sliders": sliders,
        "hidden": [len(of) < 2 for of in (page.steps, page.layers, page.towers, page.teacher_layers)],
        "maps": maps,
        "spread": spread_of(page, fitting_theme(min(width, _MOST_OF_HISTOGRAM))),
        "caption": caption(maps),
        "scores": layout.standings(snapshot, page),
        "query": view.query(),
    }


def _watch(app: Dash, session: Session) -> None:
    def watch(_n: int, query: str | None, _wanted: Any, version: str | None) -> tuple[Any, ...]:
        if query is None:
            raise PreventUpdate
        now = f"{hash(session.catalogue.version())} {session.measurer.n_done}"
        page = session.page(ViewRequest.from_query(query))
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
        page = session.page(ViewRequest.from_query(query))
        wanted = {side.entry.key: side.entry for side in page.sides if side.can_be_measured and side.entry}
        session.measurer.ask(list(wanted.values()), page.view.way or "")
        return n_clicks

    app.callback(Output("wanted", "data"), Input("measure", "n_clicks"), State("query", "data"))(measure)


def _tokens(app: Dash, session: Session) -> None:
    def tokens(query: str | None, _version: Any) -> list[Any]:
        if query is None:
            raise PreventUpdate
        page = session.page(ViewRequest.from_query(query))
        parts: list[Any] = []
        for side in page.sides:
            try:
                parts.append(layout.sentences(side.layer_view, *session.readers.extremes(side, page)))
            except InputError as error:
                parts.append(
                    html.Div([html.H3(side.layer_view.label), html.P(f"No tokens: {error}")], className="texts")
                )
        return parts

    app.callback(Output("tokens", "children"), Input("query", "data"), Input("version", "data"))(tokens)


def _export(app: Dash, session: Session) -> None:
    def export(_clicks: list[int], query: str | None) -> tuple[Any, str]:
        name = str(ctx.triggered_id).removeprefix("export-")
        if query is None or name not in layout.FORMATS:
            raise PreventUpdate
        page = session.page(ViewRequest.from_query(query))
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
