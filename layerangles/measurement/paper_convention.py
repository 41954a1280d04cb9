"""The angle as the paper's released code counts it, so that its published figures can be compared.

Point by point, what ``convention="paper"`` does and the default does not, and why the default does not:

- *One vertex, one arm fixed.* Only student layer 1 looks, and only at teacher layer 1 against each other layer k. By
  default every student layer looks at every pair: the claim is about all of them.
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

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from layerangles.errors import InputError
from layerangles.measurement.passes import Settings, load, states_of, watched
from layerangles.models.checkpoints import ModelCheckpoint
from layerangles.models.states import n_positions
from layerangles.models.student_tower import StudentTower
from layerangles.models.texts import Batch, EncodedTexts
from layerangles.results import labelling

EPSILON = 1e-6
N_BINS = 1000
LAYER = 1  # the student layer that looks, and the teacher layer that all others are compared with


def paper_cosines(
    teacher: Float[Tensor, "teacher_layer token dim"], vertex: Float[Tensor, "token dim"]
) -> Float[Tensor, "teacher_layer token"]:
    """``<T_1 − S, T_k − S> / (‖T_1 − S‖ ‖T_k − S‖ + 1e-6)`` for every k, in float64."""
    spokes = teacher.double() - vertex.double()
    length: Tensor = spokes.norm(dim=-1)
    dots: Tensor = (spokes * spokes[LAYER]).sum(dim=-1)
    return dots / (length * length[LAYER] + EPSILON)


def measure_as_paper(
    student_towers: Sequence[StudentTower],
    teacher: ModelCheckpoint,
    encoded: EncodedTexts,
    settings: Settings,
    *,
    max_length: int,
) -> list[xr.Dataset]:
    """One dataset per student tower: ``cosine``, ``angle_deg``, ``acute_fraction``, ``histogram`` for layer 1.

    All other cells are NaN, and so are the intervals.

    Raises:
        InputError: layer 1 of a student cannot be put into teacher space, or ``max_length`` is more than the models
            have positions for.
    """
    for student_tower in student_towers:
        if LAYER not in student_tower.layers:
            raise InputError(
                f"the paper's convention looks from student layer {LAYER}, and {student_tower.student.name} has no map "
                "for it. Train with a strategy that matches it, or use the default convention."
            )
    positions = [
        n_positions(one.config) for one in (teacher, *(student_tower.student for student_tower in student_towers))
    ]
    most = min((n for n in positions if n is not None), default=max_length)
    if max_length > most:
        raise InputError(
            f"in the paper's convention every text is padded to max_length, here {max_length}, and these models have "
            f"positions for {most} tokens. Choose a max_length of at most {most}."
        )
    model = load(teacher, settings.device)
    students = {
        str(student_tower.student.path): load(student_tower.student, settings.device)
        for student_tower in student_towers
    }
    pad_id = encoded.tokenizer.pad_token_id or 0
    means: list[list[Tensor]] = [[] for _ in student_towers]
    histograms: list[Tensor | int] = [0 for _ in student_towers]
    with torch.inference_mode():
        batches = encoded.batches(settings.batch_size)  # in every process: means over batches do not add up
        for batch in watched(batches, encoded, settings, "angles, paper's convention"):
            everything = _padded(batch.to(settings.device), max_length, pad_id)
            targets = states_of(model, everything, settings)
            states = {path: states_of(student, everything, settings) for path, student in students.items()}
            for i, student_tower in enumerate(student_towers):
                vertex = student_tower.vertex(states[str(student_tower.student.path)][student_tower.tower])[
                    list(student_tower.layers).index(LAYER)
                ]
                cosines = paper_cosines(targets[student_tower.tower], vertex)
                kinds = (cosines, cosines.clamp(-1, 1).arccos().rad2deg(), (cosines > 0).double())
                means[i].append(torch.stack([kind.mean(dim=-1) for kind in kinds]).cpu())
                histograms[i] = histograms[i] + _histogram(cosines).cpu()
    return [
        _labelled(student_tower, torch.stack(of_lens).mean(dim=0), torch.as_tensor(histogram))
        for student_tower, of_lens, histogram in zip(student_towers, means, histograms, strict=True)
    ]


def _padded(batch: Batch, length: int, pad_id: int) -> Batch:
    """The batch padded to a length, with every position counted. The models still do not attend to PAD."""
    inputs = {
        name: torch.nn.functional.pad(
            value, (0, length - value.shape[1]), value=pad_id if name.endswith("input_ids") else 0
        )
        for name, value in batch.inputs.items()
    }
    counted = {tower: torch.ones_like(mask[:, :1]).expand(-1, length) for tower, mask in batch.counted.items()}
    return Batch(inputs, counted, batch.numbers)


def _histogram(cosines: Float[Tensor, "teacher_layer token"]) -> Tensor:
    bins = ((cosines + 1) * (N_BINS / 2)).long().clamp_(0, N_BINS - 1)
    return torch.stack([torch.bincount(row, minlength=N_BINS) for row in bins])


def _labelled(student_tower: StudentTower, means: Float[Tensor, "kind teacher_layer"], histogram: Tensor) -> xr.Dataset:
    n_teacher = means.shape[1]
    others = [k for k in range(n_teacher) if k != LAYER]

    def cells(values: Tensor, fill: float) -> labelling.Array:
        dtype = values.numpy().dtype
        out = np.full((student_tower.n_layers, n_teacher, n_teacher, *values.shape[1:]), fill, dtype=dtype)
        out[LAYER, LAYER, others] = out[LAYER, others, LAYER] = values.numpy()[others]
        return out

    def layer(value: Tensor) -> labelling.Array:
        out = np.full(student_tower.n_layers, np.nan)
        out[LAYER] = float(value)
        return out

    square = ("student_layer", "layer_a", "layer_b")
    cosine, angle, acute = means
    n_tokens = histogram.sum(dim=-1)
    nan = torch.full_like(angle, torch.nan)
    return xr.Dataset(
        {
            "cosine": (square, cells(cosine, np.nan)),
            "angle_deg": (square, cells(angle, np.nan)),
            "ci_low": (square, cells(nan, np.nan)),
            "ci_high": (square, cells(nan, np.nan)),
            "acute_fraction": (square, cells(acute, np.nan)),
            "n_tokens": (square, cells(n_tokens, 0)),
            "n_degenerate": (square, cells(torch.zeros_like(n_tokens), 0)),
            "histogram": ((*square, "bin"), cells(histogram, 0)),
            "layer_angle_deg": ("student_layer", layer(angle[others].mean())),
            "layer_ci_low": ("student_layer", layer(nan[0])),
            "layer_ci_high": ("student_layer", layer(nan[0])),
            "layer_acute_fraction": ("student_layer", layer(acute[others].mean())),
        },
        coords={
            "student_layer": np.arange(student_tower.n_layers),
            "layer_a": np.arange(n_teacher),
            "layer_b": np.arange(n_teacher),
            "bin": np.round(np.linspace(-1, 1, N_BINS + 1)[:-1], 12),
        },
    )
