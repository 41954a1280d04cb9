"""Results become plotly figures here. Nothing is computed, nothing is shown: a figure is returned or written."""

from layerangles.figures.compare_pair import Sight, versus
from layerangles.figures.comparison import comparison
from layerangles.figures.distances import distances
from layerangles.figures.drawing.export import write_html, write_image
from layerangles.figures.drawing.style import caption
from layerangles.figures.drawing.theme import Theme, theme
from layerangles.figures.forest import forest, gains
from layerangles.figures.heatmap import heatmap
from layerangles.figures.histogram import histogram
from layerangles.figures.histogram_pair import spread
from layerangles.figures.prediction import prediction
from layerangles.figures.trajectory import trajectory

__all__ = [
    "Sight",
    "Theme",
    "caption",
    "comparison",
    "distances",
    "forest",
    "gains",
    "heatmap",
    "histogram",
    "prediction",
    "spread",
    "theme",
    "trajectory",
    "versus",
    "write_html",
    "write_image",
]
