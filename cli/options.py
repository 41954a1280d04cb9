"""Options that several commands take alike."""

from typing import Annotated

import typer

Margin = Annotated[float | None, typer.Option(help="The smallest difference that matters, in the metric's own unit.")]
MarginOfGain = Annotated[float | None, typer.Option(help="The same, as a share of what matching gains over none.")]
Metric = Annotated[str | None, typer.Option(help="Of the studies; what they decide by, by default.")]
Split = Annotated[str | None, typer.Option(help="Of the studies; test, or else dev, by default.")]
