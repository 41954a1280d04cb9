"""Angles in gradient space: between the directions in which teacher layers would move the student's parameters."""

import copy

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.student_tower import StudentTower
from layerangles.results import labelling
from layerangles.results.combination import combine_parts
from layerangles.settings import MeasurementSettings


class GradientMeter:
    """Angles between gradients, with the interface of :class:`layerangles.measurement.meter.AngleMeter`.

    An update adds a whole tower instead of a batch: the gradients of one student layer at a time are summed over all
    batches (:func:`layerangles.geometry.gradients.gradient_products`), since those of all together would not fit into
    memory.
    """

    def __init__(self, settings: MeasurementSettings, n_examples: int) -> None:
        """A meter of no towers, whose gradients are summed over so many examples."""
        self.aggregation = (
            f"gradients summed over {settings.gradient_batches} batches of {settings.batch_size} examples"
        )
        self.n_examples = n_examples
        self._steps = settings.steps
        self._parts: list[xr.Dataset] = []

    def update(self, tower: StudentTower, products: Float[Tensor, "view teacher_layer teacher_layer"]) -> None:
        """Add a student tower: the products of its gradients."""
        self._parts.append(
            labelling.label_student(labelling.label_gradients(products, tower), tower, steps=self._steps)
        )

    def merge(self, other: "GradientMeter") -> "GradientMeter":
        """The meter of the towers of both, measured on the same examples."""
        both = copy.copy(self)
        both._parts = [*self._parts, *other._parts]
        return both

    def compute(self) -> xr.Dataset:
        """The labelled angles of all towers."""
        return combine_parts(self._parts).assign_attrs(n_examples=self.n_examples, aggregation=self.aggregation)
