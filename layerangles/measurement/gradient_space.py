"""The meter of gradient space, where angles are between gradients with respect to the student's parameters."""

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

    An update adds a whole tower instead of a batch: the gradients of all layers at once would not fit into memory, so
    those of one layer at a time are summed over all batches
    (:func:`layerangles.geometry.gradients.gradient_products`).
    """

    def __init__(self, settings: MeasurementSettings, n_examples: int) -> None:
        """A meter of no towers, for gradients summed over ``n_examples`` examples."""
        self.aggregation = (
            f"gradients summed over {settings.gradient_batches} batches of {settings.batch_size} examples"
        )
        self.n_examples = n_examples
        self._steps = settings.steps
        self._parts: list[xr.Dataset] = []

    def update(self, tower: StudentTower, products: Float[Tensor, "view teacher_layer teacher_layer"]) -> None:
        """Add a student tower by the products of its gradients."""
        self._parts.append(
            labelling.label_student(labelling.label_gradients(products, tower), tower, steps=self._steps)
        )

    def merge(self, other: "GradientMeter") -> "GradientMeter":
        """The meter of the towers of both, which were measured on the same examples."""
        both = copy.copy(self)
        both._parts = [*self._parts, *other._parts]
        return both

    def compute(self) -> xr.Dataset:
        """The labelled angles of all towers."""
        return combine_parts(self._parts).assign_attrs(n_examples=self.n_examples, aggregation=self.aggregation)
