"""Mergeable sums over tokens, from which every number of a result follows; clustered by example.

Nothing here grows with the data: an update adds a batch to sums of fixed size, and the sums of two parts of the
data, measured apart, add up to the sums of the whole.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from layerangles.geometry import nulls as null_baselines
from layerangles.geometry.angles import (
    TOKENS_PER_CHUNK,
    Products,
    centred_states,
    chunk_geometry,
    layer_pairs,
    products_of,
)
from layerangles.geometry.nulls import NullName, Tokens

N_BINS = 200

Sums = TypeVar("Sums")


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


class View(NamedTuple):
    """Some layers of a student, and the teacher in the space in which they look at it.

    Attributes:
        rows: which of the student's layers these are, among those that are measured.
        teacher: states of all teacher layers.
        vertex: states of the student's layers in the same space.
        untrained: those of an untrained student; asked for by N3 alone.
    """

    rows: slice
    teacher: Float[Tensor, "teacher_layer token dim"]
    vertex: Float[Tensor, "student_layer token dim"]
    untrained: Float[Tensor, "student_layer token dim"] | None = None


@dataclass
class _Batch:
    """Totals and counts of one batch, by example; angles in radians."""

    total: Float[Tensor, "student_layer pair example"]
    count: Float[Tensor, "student_layer pair example"]
    null_total: Float[Tensor, "null student_layer pair example"]
    null_count: Float[Tensor, "null student_layer pair example"]
    excess_total: Float[Tensor, "null student_layer pair example"]
    excess_count: Float[Tensor, "null student_layer pair example"]

    def of(self, examples: slice) -> "_Batch":
        """A view of some examples' totals and counts."""
        return _Batch(*(getattr(self, field.name)[..., examples] for field in fields(self)))


class AngleSums:
    """The sums of one student over all its layers and all pairs of teacher layers.

    Attributes:
        angle: the angle in degrees, per ``[student_layer, pair]``, pairs in the order of :func:`layer_pairs`.
        layer_angle: the angle over all pairs, per ``[student_layer]``.
        student_angle: the angle over all layers and pairs.
        excess: the angle minus that of each null at the same token, per ``[null, student_layer, pair]``; over the
            tokens where both are defined. ``layer_excess`` per ``[null, student_layer]``, ``student_excess`` per
            ``[null]``.
        null_total, null_count: total in degrees and number of tokens of each null's angle,
            ``[null, student_layer, pair]``.
        cosine_total: sum of the cosines, ``[student_layer, pair]``.
        n_acute: tokens whose cosine is above 0, ``[student_layer, pair]``.
        n_degenerate: tokens left out because a direction has no length, ``[student_layer, pair]``.
        histogram: tokens per cosine bin, ``[student_layer, pair, bin]``: :data:`N_BINS` equal bins over [−1, 1], each
            with its lower end, the last with its upper end too.
    """

    def __init__(
        self,
        n_student_layers: int,
        n_teacher_layers: int,
        *,
        nulls: Sequence[NullName] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.nulls = tuple(nulls)
        self._a, self._b = (index.to(device) for index in layer_pairs(n_teacher_layers))
        self._room: Tensor | None = None
        cells, n = (n_student_layers, len(self._a)), len(self.nulls)
        self.angle = ClusteredMean.zeros(*cells, device=device)
        self.layer_angle = ClusteredMean.zeros(n_student_layers, device=device)
        self.student_angle = ClusteredMean.zeros(device=device)
        self.excess = ClusteredMean.zeros(n, *cells, device=device)
        self.layer_excess = ClusteredMean.zeros(n, n_student_layers, device=device)
        self.student_excess = ClusteredMean.zeros(n, device=device)
        self.null_total = torch.zeros((n, *cells), dtype=torch.float64, device=device)
        self.null_count = torch.zeros_like(self.null_total)
        self.cosine_total = torch.zeros(cells, dtype=torch.float64, device=device)
        self.n_acute = torch.zeros(cells, dtype=torch.int64, device=device)
        self.n_degenerate = torch.zeros(cells, dtype=torch.int64, device=device)
        self.histogram = torch.zeros((*cells, N_BINS), dtype=torch.int64, device=device)

    def update(self, views: Sequence[View], tokens: Tokens) -> None:
        """Add the tokens of whole examples.

        Args:
            views: together all of the student's layers; one view where all of them share a space.
            tokens: which tokens these are. No example may come in two updates: it would count as two clusters.
        """
        n_examples = int(tokens.example.max()) + 1 if len(tokens.example) else 0
        batch = self._batch(n_examples)
        for view in views:
            for start in range(0, len(tokens.example), TOKENS_PER_CHUNK):
                chunk = slice(start, start + TOKENS_PER_CHUNK)
                # Only the examples that have tokens in this chunk: a few of many.
                example = tokens.example[chunk]
                some = slice(int(example.min()), int(example.max()) + 1)
                belongs = torch.nn.functional.one_hot(example - some.start, some.stop - some.start).to(batch.total)
                self._add_chunk(view, tokens, chunk, belongs, batch.of(some))
        self._add_batch(batch)

    def _batch(self, n_examples: int) -> _Batch:
        def zeros(*first: int) -> Tensor:
            return self.cosine_total.new_zeros((*first, *self.cosine_total.shape, n_examples))

        n = len(self.nulls)
        return _Batch(zeros(), zeros(), zeros(n), zeros(n), zeros(n), zeros(n))

    def _null_points(self, view: View, tokens: Tokens, chunk: slice) -> tuple[list[Tensor], dict[NullName, slice]]:
        """All points that nulls look from, and where each null's are behind the student's own layers."""
        points, where, end = [], {}, len(view.vertex)
        for null in self.nulls:
            of_null = null_baselines.vertices(null, view.teacher, view.vertex, tokens, view.untrained, chunk)
            if of_null is not None:
                where[null] = slice(end, end + len(of_null))
                end += len(of_null)
                points.append(of_null)
        return points, where

    def _workspace(self, n_states: int, dim: int) -> Tensor:
        """Room for the states of a chunk, kept from one to the next."""
        if self._room is None or self._room.shape[1:] != (n_states, dim):
            shape = (TOKENS_PER_CHUNK, n_states, dim)
            self._room = torch.empty(shape, dtype=torch.float64, device=self.cosine_total.device)
        return self._room

    def _add_chunk(
        self, view: View, tokens: Tokens, chunk: slice, belongs: Float[Tensor, "chunk_token example"], batch: _Batch
    ) -> None:
        teacher, own = view.teacher[:, chunk], slice(0, len(view.vertex))
        points, where = self._null_points(view, tokens, chunk)
        vertices = [view.vertex[:, chunk], *points]
        partners = [view.teacher[:, tokens.partner[chunk]]] if "N2" in self.nulls else []
        n = sum(map(len, vertices))
        n_states = len(teacher) + n + sum(map(len, partners))
        room = self._workspace(n_states, teacher.shape[-1])
        states = centred_states(teacher, *vertices, *partners, out=room)
        everything = products_of(states, len(teacher))
        products = Products(everything.between, everything.cross[:n], everything.vertex_norm[:n])
        cosines = chunk_geometry(teacher, vertices, self._a, self._b, products).cosines

        angles = cosines[own].arccos()  # in radians until they are summed: fewer numbers to convert
        total, count, whole = _totals(angles, belongs)
        batch.total[view.rows] += total
        batch.count[view.rows] += count
        self._count_cosines(cosines[own], view.rows, whole)
        for k, null in enumerate(self.nulls):
            match null:
                case "N0":
                    norms = [x[:, chunk].norm(dim=-1).double().square_() for x in (view.teacher, view.vertex)]
                    of_null = null_baselines.independent_cosines(norms[0], norms[1], self._a, self._b)
                case "N2":
                    others = slice(n, n + len(teacher))
                    of_null = null_baselines.other_layer_cosines(everything, states, others, own, self._a, self._b)
                case _:
                    of_null = cosines[where[null]]
            null_angles = of_null.arccos()
            null_total, null_count, null_whole = _totals(null_angles, belongs)
            batch.null_total[k, view.rows] += null_total
            batch.null_count[k, view.rows] += null_count
            if whole and null_whole:
                batch.excess_total[k, view.rows] += total - null_total
                batch.excess_count[k, view.rows] += count
            else:
                excess_total, excess_count, _ = _totals(angles - null_angles, belongs)
                batch.excess_total[k, view.rows] += excess_total
                batch.excess_count[k, view.rows] += excess_count

    def _count_cosines(self, cosines: Float[Tensor, "student_layer pair token"], rows: slice, whole: bool) -> None:
        weight = torch.ones((), dtype=torch.int64, device=cosines.device).expand(cosines.shape)
        if not whole:
            degenerate = cosines.isnan()
            self.n_degenerate[rows] += degenerate.sum(dim=-1)
            weight = (~degenerate).long()
            # Left out, not patched: these tokens have weight zero in every count below.
            cosines = cosines.masked_fill(degenerate, 0.0)
        self.cosine_total[rows] += cosines.sum(dim=-1)
        self.n_acute[rows] += (cosines > 0).sum(dim=-1)
        histogram = self.histogram[rows]
        n_cells = histogram[..., 0].numel()
        bins = (cosines.flatten(0, 1) + 1).mul_(N_BINS / 2).to(torch.int64).clamp_(max=N_BINS - 1)
        bins += torch.arange(0, n_cells * N_BINS, N_BINS, device=bins.device)[:, None]
        histogram.view(-1).index_add_(0, bins.flatten(), weight.reshape(-1))

    def _add_batch(self, batch: _Batch) -> None:
        for total in (batch.total, batch.null_total, batch.excess_total):
            total.rad2deg_()
        self.angle.add(batch.total, batch.count)
        self.layer_angle.add(batch.total.sum(dim=1), batch.count.sum(dim=1))
        self.student_angle.add(batch.total.sum(dim=(0, 1)), batch.count.sum(dim=(0, 1)))
        self.excess.add(batch.excess_total, batch.excess_count)
        self.layer_excess.add(batch.excess_total.sum(dim=2), batch.excess_count.sum(dim=2))
        self.student_excess.add(batch.excess_total.sum(dim=(1, 2)), batch.excess_count.sum(dim=(1, 2)))
        self.null_total += batch.null_total.sum(dim=-1)
        self.null_count += batch.null_count.sum(dim=-1)

    def merge(self, other: "AngleSums") -> "AngleSums":
        """The sums over both parts of the data; equal to the sums over the whole up to the rounding of float64.

        Raises:
            ValueError: the two are sums over different numbers of layers, or of different nulls.
        """
        if self.cosine_total.shape != other.cosine_total.shape or self.nulls != other.nulls:
            raise ValueError(
                "only sums over the same layers and nulls can be merged; got [student_layer, pair] of "
                f"{list(self.cosine_total.shape)} and {list(other.cosine_total.shape)}, nulls {self.nulls} and "
                f"{other.nulls}."
            )
        return merged(self, other)


def _totals(
    values: Float[Tensor, "*cell token"], belongs: Float[Tensor, "token example"]
) -> tuple[Float[Tensor, "*cell example"], Float[Tensor, "*cell example"], bool]:
    """Totals and counts by example over the values that are not NaN; and whether none is."""
    total = values @ belongs
    if bool(total.sum().isfinite()):  # one NaN would be in all totals of its cell
        return total, belongs.sum(dim=0).expand(total.shape), True
    valid = ~values.isnan()
    return values.masked_fill(~valid, 0.0) @ belongs, valid.to(belongs) @ belongs, False


def state_of(sums: object) -> dict[str, Tensor]:
    """The tensors that make up an object of sums: its public attributes, and the fields of its clustered means."""
    state: dict[str, Tensor] = {}
    for name, value in vars(sums).items():
        if isinstance(value, ClusteredMean):
            state |= {f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)}
        elif isinstance(value, Tensor) and not name.startswith("_"):
            state[name] = value
    return state


def merged(one: Sums, other: Sums) -> Sums:
    """A new object whose every sum is the sum of the two's."""
    both = copy.copy(one)
    for name, value in vars(one).items():
        setattr(both, name, copy.deepcopy(value) if isinstance(value, ClusteredMean | Tensor) else value)
    for name, tensor in state_of(other).items():
        state_of(both)[name].add_(tensor)
    return both
