"""Plotly figures of results and verdicts. Functions compute nothing and show nothing: they return figures."""

from layerangles.figures.compare_pair import compare_pair
from layerangles.figures.comparison import comparison
from layerangles.figures.distances import distances
from layerangles.figures.drawing.export import write_html, write_image
from layerangles.figures.drawing.frame import caption
from layerangles.figures.drawing.layer_view import LayerView
from layerangles.figures.drawing.theme import Theme, theme
from layerangles.figures.forest import forest, gains
from layerangles.figures.heatmap import heatmap
from layerangles.figures.histogram import histogram
from layerangles.figures.histogram_pair import histogram_pair
from layerangles.figures.prediction import prediction
from layerangles.figures.trajectory import trajectory

__all__ = [
    "LayerView",
    "Theme",
    "caption",
    "compare_pair",
    "comparison",
    "distances",
    "forest",
    "gains",
    "heatmap",
    "histogram",
    "histogram_pair",
    "prediction",
    "theme",
    "trajectory",
    "write_html",
    "write_image",
]
