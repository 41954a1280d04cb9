"""Angles in the convention of the paper's released code, for comparison with its published figures.

The differences of ``convention="paper"`` from the default, and the reasons for the default:

- *One vertex, one arm fixed.* The vertex is student layer 1, and one arm goes to teacher layer 1, the other to each
  other layer k. By default every student layer is a vertex and every pair is measured: the claim is about all of them.
- *PAD counts.* Every text is padded to ``max_length``, and the states at PAD enter the mean. They are the models'
  answer to no token at all, and with short texts they outnumber the words.
- *An epsilon.* ``cos = <u, v> / (‖u‖ ‖v‖ + 1e-6)``, which pulls cosines of short vectors towards 0. By default a
  direction of no length is left out and counted.
- *Batches weigh equally*, whatever their size: the last, smaller batch counts too much. By default tokens do.
- *No interval.* The code keeps a (biased) running variance over batches. By default intervals are clustered by example.
- *1000 bins* in the histogram over [−1, 1] instead of 200.

The code asserts equal widths and applies no map; a student with trained maps is seen through them here too.
Source: Yu, Wen and Mou (2025), section 4, and their released code. There, the loop keeps only the last k, and the
script names a student that was never trained; here all k are kept and the student is yours.
"""

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from transformers import PretrainedConfig

from layerangles.errors import InputError
from layerangles.geometry.student_tower import StudentTower
from layerangles.measurement.meter import StudentStates, TeacherBatch
from layerangles.models.states import n_positions
from layerangles.models.texts import Batch
from layerangles.results import labelling
from layerangles.results.combination import combine_parts
from layerangles.settings import MeasurementSettings

EPSILON = 1e-6
N_BINS = 1000
LAYER = 1  # the student layer of the vertex, and the teacher layer that all others are compared with


def paper_cosines(
    teacher: Float[Tensor, "teacher_layer token dim"], vertex: Float[Tensor, "token dim"]
) -> Float[Tensor, "teacher_layer token"]:
    """``<T_1 − S, T_k − S> / (‖T_1 − S‖ ‖T_k − S‖ + 1e-6)`` for every k, in float64."""
    spokes = teacher.double() - vertex.double()
    length: Tensor = spokes.norm(dim=-1)
    dots: Tensor = (spokes * spokes[LAYER]).sum(dim=-1)
    return dots / (length * length[LAYER] + EPSILON)


class PaperMeter:
    """Angles in the paper's convention, with the interface of :class:`layerangles.measurement.meter.AngleMeter`.

    Batches must be padded (:func:`padded`), and every update counts as one of the batches that are averaged over.
    """

    aggregation = "per position, PAD included, then mean over a batch, then over batches"

    def __init__(self, towers: Sequence[StudentTower], settings: MeasurementSettings) -> None:
        """A meter of no batches.

        Raises:
            InputError: layer 1 of a student cannot be put into teacher space.
        """
        for one in towers:
            if LAYER not in one.layers:
                raise InputError(
                    f"the paper's convention looks from student layer {LAYER}, and {one.student} has no map for it. "
                    "Train with a strategy that matches it, or use the default convention."
                )
        self.towers = tuple(towers)
        self.n_examples = 0
        self._steps = settings.steps
        # By tower: the means of each batch over its tokens, per [kind, teacher_layer], and counts per cosine bin.
        self._means: list[list[Tensor]] = [[] for _ in towers]
        self._histograms: list[Tensor] = [torch.zeros((), dtype=torch.long) for _ in towers]

    def update(self, teacher: TeacherBatch, students: Iterable[StudentStates]) -> None:
        """Add a batch; as :meth:`layerangles.measurement.meter.AngleMeter.update`."""
        self.n_examples += teacher.n_examples
        for i, (one, states) in enumerate(zip(self.towers, students, strict=True)):
            vertex = one.vertex(states.trained[one.tower])[list(one.layers).index(LAYER)]
            cosines = paper_cosines(teacher.states[one.tower], vertex)
            kinds = (cosines, cosines.clamp(-1, 1).arccos().rad2deg(), (cosines > 0).double())
            self._means[i].append(torch.stack([kind.mean(dim=-1) for kind in kinds]).cpu())
            self._histograms[i] = self._histograms[i] + _histogram(cosines).cpu()

    def merge(self, other: "PaperMeter") -> "PaperMeter":
        """The meter of the batches of both."""
        both = copy.copy(self)
        both._means = [[*a, *b] for a, b in zip(self._means, other._means, strict=True)]
        both._histograms = [a + b for a, b in zip(self._histograms, other._histograms, strict=True)]
        both.n_examples = self.n_examples + other.n_examples
        return both

    def compute(self) -> xr.Dataset:
        """Labelled means at layer 1; intervals and all other layers are NaN."""
        parts = [
            labelling.label_student(_labelled(one, torch.stack(means).mean(dim=0), histogram), one, steps=self._steps)
            for one, means, histogram in zip(self.towers, self._means, self._histograms, strict=True)
        ]
        return combine_parts(parts).assign_attrs(n_examples=self.n_examples, aggregation=self.aggregation)


def check_positions(max_length: int, configs: Iterable[PretrainedConfig]) -> None:
    """Raise an :class:`InputError` unless all models have positions for texts padded to ``max_length``."""
    most = min((n for n in map(n_positions, configs) if n is not None), default=max_length)
    if max_length > most:
        raise InputError(
            f"in the paper's convention every text is padded to max_length, here {max_length}, and these models have "
            f"positions for {most} tokens. Choose a max_length of at most {most}."
        )


def padded(batch: Batch, length: int, pad_id: int) -> Batch:
    """Pad a batch to a length and make every position valid; the models still do not attend to PAD."""
    inputs = {
        name: torch.nn.functional.pad(
            value, (0, length - value.shape[1]), value=pad_id if name.endswith("input_ids") else 0
        )
        for name, value in batch.inputs.items()
    }
    valid = {tower: torch.ones_like(mask[:, :1]).expand(-1, length) for tower, mask in batch.valid.items()}
    return Batch(inputs, valid, batch.numbers)


def _histogram(cosines: Float[Tensor, "teacher_layer token"]) -> Tensor:
    bins = ((cosines + 1) * (N_BINS / 2)).long().clamp_(0, N_BINS - 1)
    return torch.stack([torch.bincount(row, minlength=N_BINS) for row in bins])


def _labelled(tower: StudentTower, means: Float[Tensor, "kind teacher_layer"], histogram: Tensor) -> xr.Dataset:
    n_teacher = means.shape[1]
    others = [k for k in range(n_teacher) if k != LAYER]

    def cells(values: Tensor, fill: float) -> labelling.Array:
        dtype = values.numpy().dtype
        out = np.full((tower.n_layers, n_teacher, n_teacher, *values.shape[1:]), fill, dtype=dtype)
        out[LAYER, LAYER, others] = out[LAYER, others, LAYER] = values.numpy()[others]
        return out

    def layer(value: Tensor) -> labelling.Array:
        out = np.full(tower.n_layers, np.nan)
        out[LAYER] = float(value)
        return out

    cosine, angle, acute = means
    n_tokens = histogram.sum(dim=-1)
    nan = torch.full_like(angle, torch.nan)
    return labelling.label_values(
        {
            "cosine": cells(cosine, np.nan),
            "angle_deg": cells(angle, np.nan),
            "ci_low": cells(nan, np.nan),
            "ci_high": cells(nan, np.nan),
            "acute_fraction": cells(acute, np.nan),
            "n_tokens": cells(n_tokens, 0),
            "n_degenerate": cells(torch.zeros_like(n_tokens), 0),
            "histogram": cells(histogram, 0),
            "layer_angle_deg": layer(angle[others].mean()),
            "layer_ci_low": layer(nan[0]),
            "layer_ci_high": layer(nan[0]),
            "layer_acute_fraction": layer(acute[others].mean()),
        },
        bin=np.round(np.linspace(-1, 1, N_BINS + 1)[:-1], 12),
    )
