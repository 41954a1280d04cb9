"""Mergeable sums over tokens, from which every number of a result follows; clustered by example.

Nothing here grows with the data: an update adds a batch to sums of fixed size, and the sums of two parts of the
data, measured apart, add up to the sums of the whole.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from layerangles.geometry import TOKENS_PER_CHUNK, chunk_geometry, layer_pairs

N_BINS = 200


@dataclass
class ClusteredMean:
    """A mean over tokens whose interval treats the tokens of one example as one cluster.

    With the total ``s_e`` and the number ``n_e`` of an example's tokens, the mean is the ratio ``Σ s_e / Σ n_e`` and
    its variance the usual linearised one of a ratio of cluster totals,
    ``E/(E−1) · Σ (s_e − mean · n_e)² / (Σ n_e)²`` (Cochran, *Sampling Techniques*, 1977, section 9A).
    """

    n_examples: Float[Tensor, "*cell"]
    total: Float[Tensor, "*cell"]
    count: Float[Tensor, "*cell"]
    total_squared: Float[Tensor, "*cell"]
    total_times_count: Float[Tensor, "*cell"]
    count_squared: Float[Tensor, "*cell"]

    @classmethod
    def zeros(cls, *shape: int, device: torch.device | str = "cpu") -> "ClusteredMean":
        """Sums over no tokens."""
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for _ in fields(cls)))

    def add(self, total: Float[Tensor, "*cell example"], count: Float[Tensor, "*cell example"]) -> None:
        """Add whole examples, each with the total and the number of its tokens."""
        self.n_examples += (count > 0).sum(dim=-1)
        self.total += total.sum(dim=-1)
        self.count += count.sum(dim=-1)
        self.total_squared += total.square().sum(dim=-1)
        self.total_times_count += (total * count).sum(dim=-1)
        self.count_squared += count.square().sum(dim=-1)

    def merge(self, other: "ClusteredMean") -> "ClusteredMean":
        """The sums over both parts of the data."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def mean(self) -> Float[Tensor, "*cell"]:
        """The mean over tokens; NaN where there are none."""
        return self.total / self.count

    def interval(self, confidence: float = 0.95) -> tuple[Float[Tensor, "*cell"], Float[Tensor, "*cell"]]:
        """The two-sided interval of the mean by Student's t with ``n_examples − 1`` degrees of freedom.

        NaN where fewer than two examples have a token that counts.
        """
        mean, n = self.mean(), self.n_examples
        squared_residual = self.total_squared - 2 * mean * self.total_times_count + mean**2 * self.count_squared
        # Sums of squares may come out a rounding error below zero where all examples agree.
        variance = n / (n - 1) * squared_residual.clamp(min=0.0) / self.count**2
        quantile = torch.as_tensor(stats.t.ppf((1 + confidence) / 2, (n - 1).cpu().numpy())).to(n)
        half_width = quantile * variance.sqrt()
        return mean - half_width, mean + half_width


class AngleSums:
    """The sums of one student over all its layers and all pairs of teacher layers.

    Attributes:
        angle: the angle in degrees, per ``[student_layer, pair]``, pairs in the order of :func:`layer_pairs`.
        layer_angle: the angle over all pairs, per ``[student_layer]``.
        cosine_total: sum of the cosines, ``[student_layer, pair]``.
        n_acute: tokens whose cosine is above 0, ``[student_layer, pair]``.
        n_degenerate: tokens left out because a direction has no length, ``[student_layer, pair]``.
        histogram: tokens per cosine bin, ``[student_layer, pair, bin]``: :data:`N_BINS` equal bins over [−1, 1], each
            with its lower end, the last with its upper end too.
    """

    def __init__(self, n_student_layers: int, n_teacher_layers: int, *, device: torch.device | str = "cpu") -> None:
        self._a, self._b = (index.to(device) for index in layer_pairs(n_teacher_layers))
        cells = (n_student_layers, len(self._a))
        self.angle = ClusteredMean.zeros(*cells, device=device)
        self.layer_angle = ClusteredMean.zeros(n_student_layers, device=device)
        self.cosine_total = torch.zeros(cells, dtype=torch.float64, device=device)
        self.n_acute = torch.zeros(cells, dtype=torch.int64, device=device)
        self.n_degenerate = torch.zeros(cells, dtype=torch.int64, device=device)
        self.histogram = torch.zeros((*cells, N_BINS), dtype=torch.int64, device=device)

    def update(
        self,
        teacher: Float[Tensor, "teacher_layer token dim"],
        vertex: Float[Tensor, "student_layer token dim"],
        example: Int[Tensor, " token"],
    ) -> None:
        """Add the tokens of whole examples.

        Args:
            teacher: states of all teacher layers.
            vertex: states of the student's layers in teacher space.
            example: which example of this batch, counted from 0, each token belongs to. No example may come in two
                updates, since it would count as two clusters.
        """
        n_examples = int(example.max()) + 1 if len(example) else 0
        total = self.cosine_total.new_zeros((*self.cosine_total.shape, n_examples))
        count = torch.zeros_like(total)
        for start in range(0, teacher.shape[1], TOKENS_PER_CHUNK):
            tokens = slice(start, start + TOKENS_PER_CHUNK)
            chunk = chunk_geometry(teacher[:, tokens], vertex[:, tokens], self._a, self._b)
            belongs = torch.nn.functional.one_hot(example[tokens], n_examples).to(total)
            self._add_chunk(chunk.cosines, bool(chunk.degenerate.any()), belongs, total, count)
        total.rad2deg_()
        self.angle.add(total, count)
        self.layer_angle.add(total.sum(dim=1), count.sum(dim=1))

    def _add_chunk(
        self,
        cosines: Float[Tensor, "student_layer pair token"],
        any_degenerate: bool,
        belongs: Float[Tensor, "token example"],
        total: Float[Tensor, "student_layer pair example"],
        count: Float[Tensor, "student_layer pair example"],
    ) -> None:
        angles = cosines.arccos()  # in radians until they are summed: fewer numbers to convert
        weight = torch.ones((), dtype=torch.int64, device=cosines.device).expand(cosines.shape)
        if any_degenerate:
            degenerate = cosines.isnan()
            self.n_degenerate += degenerate.sum(dim=-1)
            weight = (~degenerate).long()
            # Left out, not patched: these tokens have weight zero in every count below.
            angles, cosines = angles.masked_fill_(degenerate, 0.0), cosines.masked_fill(degenerate, 0.0)
            count += weight.to(count) @ belongs
        else:
            count += belongs.sum(dim=0)
        total += angles @ belongs
        self.cosine_total += cosines.sum(dim=-1)
        self.n_acute += (cosines > 0).sum(dim=-1)
        n_cells = self.n_acute.numel()
        bins = (cosines.flatten(0, 1) + 1).mul_(N_BINS / 2).to(torch.int64).clamp_(max=N_BINS - 1)
        bins += torch.arange(0, n_cells * N_BINS, N_BINS, device=bins.device)[:, None]
        self.histogram.view(-1).index_add_(0, bins.flatten(), weight.reshape(-1))

    def merge(self, other: "AngleSums") -> "AngleSums":
        """The sums over both parts of the data; equal to the sums over the whole up to the rounding of float64.

        Raises:
            ValueError: the two are sums over different numbers of layers.
        """
        if self.cosine_total.shape != other.cosine_total.shape:
            raise ValueError(
                "only sums over the same layers can be merged; got [student_layer, pair] of "
                f"{list(self.cosine_total.shape)} and {list(other.cosine_total.shape)}."
            )
        merged = object.__new__(type(self))
        merged._a, merged._b = self._a, self._b
        merged.angle = self.angle.merge(other.angle)
        merged.layer_angle = self.layer_angle.merge(other.layer_angle)
        for name in ("cosine_total", "n_acute", "n_degenerate", "histogram"):
            setattr(merged, name, getattr(self, name) + getattr(other, name))
        return merged
