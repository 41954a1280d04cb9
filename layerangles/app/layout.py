"""The page's elements and their contents. Nothing is decided here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from dash import dcc, html

from layerangles.app.catalogue import Snapshot
from layerangles.app.measuring import Progress
from layerangles.app.views import ResolvedView
from layerangles.figures import LayerView, compare_pair, histogram_pair, theme
from layerangles.figures.drawing import style
from layerangles.figures.drawing.export import CONFIG
from layerangles.geometry.nulls import meaning_of
from layerangles.notation import count, degrees, interval, number, percent
from layerangles.results.pair_values import QUANTITIES

if TYPE_CHECKING:
    from layerangles.measurement.token_angles import Sentence

FORMATS = ("html", "png", "svg", "pdf", "csv")
FOLLOWS = "follows the slider"
RAW = "raw"
_GRAPH = CONFIG | {"responsive": False, "displayModeBar": False}  # the page has buttons of its own
_WAITING = LayerView("", None, "…")  # until the first answer


def layout(title: str) -> html.Div:
    """The whole page before its first callback."""
    return html.Div(
        [
            dcc.Location(id="location", refresh=False),
            dcc.Store(id="query"),
            dcc.Store(id="version"),
            dcc.Store(id="width"),
            dcc.Store(id="wanted"),
            dcc.Store(id="address"),
            dcc.Interval(id="look", interval=2000),
            dcc.Interval(id="tick", interval=1200, disabled=True),
            dcc.Download(id="download"),
            html.Header([html.H1(["layerangles compare ", html.Small(title)]), _actions()]),
            html.Div(id="said", role="status"),
            html.Main(
                [
                    html.Section([_side("first"), _side("second")], className="sides", **_label("checkpoints")),
                    _sliders(),
                    _switches(),
                    html.Section(
                        [
                            _offer(),
                            html.P(id="caption"),
                            _graph("maps", compare_pair(_WAITING, _WAITING, theme=theme("paper"))),
                        ],
                        **_label("angles"),
                    ),
                    html.Div(
                        [_pair(), html.Section(id="scores", className="scores", **_label("scores"))], className="beside"
                    ),
                    dcc.Loading(html.Section(id="tokens", **_label("tokens")), type="dot"),
                ]
            ),
        ]
    )


def _label(text: str) -> dict[str, Any]:
    return {"aria-label": text}


def _actions() -> html.Div:
    exports = [html.Button(name.upper(), id=f"export-{name}", n_clicks=0) for name in FORMATS]
    link = html.Button("Copy link", id="copy", n_clicks=0)
    return html.Div([link, html.Span("Save as"), *exports], className="actions")


def _field(text: str, element: Any, identity: str) -> html.Div:
    return html.Div([html.Label(text, htmlFor=identity, id=f"{identity}-label"), element], className="field")


def _dropdown(identity: str) -> dcc.Dropdown:
    return dcc.Dropdown(id=identity, clearable=False, searchable=True)


def _side(name: str) -> html.Fieldset:
    return html.Fieldset(
        [
            html.Legend(f"{name} checkpoint"),
            _field("strategy", _dropdown(f"{name}-strategy"), f"{name}-strategy"),
            _field("seed", _dropdown(f"{name}-seed"), f"{name}-seed"),
            _field("step", _dropdown(f"{name}-step"), f"{name}-step"),
        ]
    )


def _sliders() -> html.Section:
    layer = dcc.Slider(id="layer", min=0, max=1, step=1, value=0, updatemode="drag", allow_direct_input=False)
    step = dcc.Slider(id="step", min=0, max=1, step=1, value=0, updatemode="drag", allow_direct_input=False)
    play = html.Button("▶ Play", id="play", n_clicks=0, **_label("play the training steps"))
    return html.Section(
        [
            html.Div(
                [html.Div("student layer", className="name"), layer],
                id="depth",
                className="slider",
                role="group",
                **_label("student layer"),
            ),
            html.Div(
                [html.Div(["training step", play], className="name"), step],
                id="course",
                className="slider",
                role="group",
                **_label("training step"),
            ),
        ],
        className="sliders",
        **_label("layer and step"),
    )


def _switches() -> html.Section:
    def radio(identity: str, text: str) -> html.Fieldset:
        return html.Fieldset([html.Legend(text), dcc.RadioItems(id=identity, inline=True)], id=f"{identity}-field")

    switches = [
        radio("way", "space"),
        radio("null", "angle, or its excess over a null"),
        radio("aggregation", "over tokens"),
        radio("tower", "tower"),
    ]
    return html.Section(switches, className="switches", **_label("what is shown"))


def _offer() -> html.Div:
    return html.Div([html.Div(id="progress", role="status"), html.Button(id="measure", n_clicks=0, hidden=True)])


def _graph(identity: str, figure: go.Figure) -> html.Div:
    return html.Div(dcc.Graph(id=identity, figure=figure, config=_GRAPH), className="wide")


def _pair() -> html.Section:
    return html.Section(
        [
            html.H2("One pair of teacher layers"),
            html.P("Click on a cell, or choose the layers here."),
            html.Div(
                [_field("layer", _dropdown("low"), "low"), _field("and layer", _dropdown("high"), "high")],
                className="pair",
            ),
            _graph("spread", histogram_pair(_WAITING, _WAITING, 0, 1, theme=theme("paper"))),
        ],
        id="pair",
        **_label("one pair of teacher layers"),
    )


def options(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Choices for a dropdown or radio buttons."""
    return [{"label": str(value), "value": value} for value in values]


def nulls(names: Sequence[str]) -> list[dict[str, Any]]:
    """Choices of the quantity shown: the angle, or its excess over one of these nulls."""
    excesses = [{"label": name, "value": name, "title": f"{name}: {meaning_of(name)}"} for name in names]
    return [{"label": "angle", "value": RAW, "title": "the angle itself"}, *excesses]


def aggregations() -> list[dict[str, Any]]:
    """Choices of the aggregation over tokens."""
    return [{"label": one.choice or one.title, "value": name} for name, one in QUANTITIES.items()]


def marks(values: Sequence[int]) -> dict[str, str]:
    """Marks of a slider over these values; at most about eight carry a number."""
    every = max(1, -(-len(values) // 8))
    return {str(i): count(v) if i % every == 0 or i == len(values) - 1 else "" for i, v in enumerate(values)}


def under_way(progress: Sequence[Progress]) -> list[html.P]:
    """Progress bars of running measurements, and the messages of failed ones."""
    parts = []
    for one in progress:
        if one.failed:
            parts.append(html.P(one.words, className="failed"))
        else:
            bar = html.Progress(value=str(round(one.share, 3)), max="1", **_label(one.words))
            parts.append(html.P([bar, f" {one.words} {percent(one.share, 0)}"]))
    return parts


def offer(page: ResolvedView, progress: Sequence[Progress]) -> str:
    """The label of the button to measure; empty if nothing can be measured, or a measurement is running."""
    names = dict.fromkeys(side.entry.key for side in page.sides if side.can_be_measured and side.entry)
    if not names or any(not one.failed for one in progress):
        return ""
    return f"Measure {' and '.join(names)} in {page.view.way} space"


def standings(snapshot: Snapshot, page: ResolvedView) -> list[Any]:
    """The score tables: best strategy first, with intervals over seeds; the two strategies shown are marked."""
    table = snapshot.standings()
    if not len(table):
        return [html.H2("Scores"), html.P("No scores are known here: they are in a study's directory.")]
    signs = [("①", page.first.entry), ("②", page.second.entry)]
    marked = {
        strategy: "".join(sign for sign, entry in signs if entry is not None and entry.strategy == strategy)
        for strategy in table["strategy"]
    }
    scores = snapshot.scores.drop_duplicates("student").set_index("student")["score"]
    parts: list[Any] = []
    for (metric, split), of in table.groupby(["metric", "split"], sort=False):
        head = html.Tr([html.Th(text, scope="col") for text in ("", "strategy", metric, "95 % over seeds", "seeds")])
        rows = [
            html.Tr(
                [
                    html.Td(marked[row["strategy"]]),
                    html.Th(row["strategy"], scope="row"),
                    html.Td(number(row["score"], 4)),
                    html.Td(interval(row["ci_low"], row["ci_high"], 4)),
                    html.Td(str(row["n_seeds"])),
                ],
                className="chosen" if marked[row["strategy"]] else "",
            )
            for row in of.to_dict("records")
        ]
        own = [f"{sign} {e.key}: {number(float(scores[e.key]), 4)}" for sign, e in signs if e and e.key in scores]
        table_ = html.Div(html.Table([html.Thead(head), html.Tbody(rows)]), className="wide")
        parts += [html.H2(f"Scores: {metric}, {split}"), table_, html.P(" · ".join(own))]
    return parts


def sentences(view: LayerView, smallest: "Sequence[Sentence]", largest: "Sequence[Sentence]") -> html.Div:
    """Texts with the extreme tokens of one checkpoint; every token has the colour of its angle."""

    def listed(title: str, some: "Sequence[Sentence]") -> list[Any]:
        return [html.H4(title), html.Ol([html.Li(_sentence(one)) for one in some])]

    parts = [*listed("smallest angles", smallest), *listed("largest angles", largest)]
    return html.Div([html.H3(view.label), *parts], className="texts")


def _sentence(sentence: "Sentence") -> list[Any]:
    extreme = sentence.pieces[sentence.extreme]
    parts: list[Any] = [html.B(f"{degrees(extreme.angle_deg)} ")]
    for place, piece in enumerate(sentence.pieces):
        if piece.angle_deg != piece.angle_deg:
            parts.append(html.Span(piece.text, className="token", title="no angle"))
            continue
        look = {"backgroundColor": style.colour_at(piece.angle_deg), "color": style.ink_on(piece.angle_deg)}
        name = "token extreme" if place == sentence.extreme else "token"
        parts.append(html.Span(piece.text, className=name, style=look, title=degrees(piece.angle_deg)))
    return parts
