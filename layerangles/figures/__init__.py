"""Results become plotly figures here. Nothing is computed, nothing is shown: a figure is returned or written."""

from layerangles.figures.comparison import comparison
from layerangles.figures.distances import distances
from layerangles.figures.export import write_html, write_image
from layerangles.figures.forest import forest, gains
from layerangles.figures.heatmap import heatmap
from layerangles.figures.histogram import histogram
from layerangles.figures.prediction import prediction
from layerangles.figures.trajectory import trajectory

__all__ = [
    "comparison",
    "distances",
    "forest",
    "gains",
    "heatmap",
    "histogram",
    "prediction",
    "trajectory",
    "write_html",
    "write_image",
]
