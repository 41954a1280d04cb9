"""Sums of angles over tokens, clustered by example, from which the numbers of a result follow.

Their size does not grow with the data, and the sums of two parts of the data add up to the sums of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.angles import (
    TOKENS_PER_CHUNK,
    Products,
    centred_states,
    chunk_geometry,
    layer_pairs,
    products_of,
)
from layerangles.geometry.nulls import NULLS, NullChunk, NullName
from layerangles.geometry.shared_space import SharedSpace, Tokens
from layerangles.sums.clustered_mean import ClusteredMean, merged

N_BINS = 200


@dataclass
class _ExampleTotals:
    """Totals and counts of one batch by example; angles in radians."""

    total: Float[Tensor, "student_layer pair example"]
    count: Float[Tensor, "student_layer pair example"]
    null_total: Float[Tensor, "null student_layer pair example"]
    null_count: Float[Tensor, "null student_layer pair example"]
    excess_total: Float[Tensor, "null student_layer pair example"]
    excess_count: Float[Tensor, "null student_layer pair example"]

    def of(self, examples: slice) -> "_ExampleTotals":
        """A view of the totals and counts of some examples."""
        return _ExampleTotals(*(getattr(self, field.name)[..., examples] for field in fields(self)))


class AngleSums:
    """Sums of the angles of one student tower, for all of its layers and all pairs of teacher layers.

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
        n_degenerate: tokens left out because a direction has zero length, ``[student_layer, pair]``.
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

    def update(self, spaces: Sequence[SharedSpace], tokens: Tokens) -> None:
        """Add the tokens of whole examples.

        Args:
            spaces: the student's layers and the teacher's, one entry for each space; together all of the layers.
            tokens: the tokens. An example must not be split over two updates, where it would count as two clusters.
        """
        n_examples = int(tokens.example.max()) + 1 if len(tokens.example) else 0
        batch = self._zero_totals(n_examples)
        for space in spaces:
            for start in range(0, len(tokens.example), TOKENS_PER_CHUNK):
                chunk = slice(start, start + TOKENS_PER_CHUNK)
                # Only the examples that have tokens in this chunk: a few of many.
                example = tokens.example[chunk]
                some = slice(int(example.min()), int(example.max()) + 1)
                belongs = torch.nn.functional.one_hot(example - some.start, some.stop - some.start).to(batch.total)
                self._add_chunk(space, tokens, chunk, belongs, batch.of(some))
        self._add_batch(batch)

    def _zero_totals(self, n_examples: int) -> _ExampleTotals:
        def zeros(*first: int) -> Tensor:
            return self.cosine_total.new_zeros((*first, *self.cosine_total.shape, n_examples))

        n = len(self.nulls)
        return _ExampleTotals(zeros(), zeros(), zeros(n), zeros(n), zeros(n), zeros(n))

    def _workspace(self, n_states: int, dim: int) -> Tensor:
        """Memory for the states of a chunk, reused by the next."""
        if self._room is None or self._room.shape[1:] != (n_states, dim):
            shape = (TOKENS_PER_CHUNK, n_states, dim)
            self._room = torch.empty(shape, dtype=torch.float64, device=self.cosine_total.device)
        return self._room

    def _add_chunk(
        self,
        space: SharedSpace,
        tokens: Tokens,
        chunk: slice,
        belongs: Float[Tensor, "chunk_token example"],
        batch: _ExampleTotals,
    ) -> None:
        teacher, own = space.teacher[:, chunk], slice(0, len(space.vertex))
        nulls = [NULLS[name] for name in self.nulls]
        # The student's layers first, then the points that each null looks from.
        vertices, where = [space.vertex[:, chunk]], {}
        n = own.stop
        for null in nulls:
            if null.vertices is not None:
                vertices.append(null.vertices(space, tokens, chunk))
                where[null.name] = slice(n, n := n + len(vertices[-1]))
        needs_partner = any(null.needs_partner_layers for null in nulls)
        partner = [space.teacher[:, tokens.partner[chunk]]] if needs_partner else []
        n_states = len(teacher) + n + sum(map(len, partner))
        room = self._workspace(n_states, teacher.shape[-1])
        states = centred_states(teacher, *vertices, *partner, out=room)
        everything = products_of(states, len(teacher))
        products = Products(everything.between, everything.cross[:n], everything.vertex_norm[:n])
        cosines = chunk_geometry(teacher, vertices, self._a, self._b, products).cosines

        angles = cosines[own].arccos()  # in radians until they are summed: fewer numbers to convert
        total, count, whole = _totals(angles, belongs)
        batch.total[space.rows] += total
        batch.count[space.rows] += count
        self._count_cosines(cosines[own], space.rows, whole)
        others = slice(n, n + len(teacher))
        prepared = NullChunk(teacher, vertices[0], states, everything, own, others, self._a, self._b)
        for k, null in enumerate(nulls):
            null_angles = (cosines[where[null.name]] if null.cosines is None else null.cosines(prepared)).arccos()
            null_total, null_count, null_whole = _totals(null_angles, belongs)
            batch.null_total[k, space.rows] += null_total
            batch.null_count[k, space.rows] += null_count
            if whole and null_whole:
                batch.excess_total[k, space.rows] += total - null_total
                batch.excess_count[k, space.rows] += count
            else:
                excess_total, excess_count, _ = _totals(angles - null_angles, belongs)
                batch.excess_total[k, space.rows] += excess_total
                batch.excess_count[k, space.rows] += excess_count

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

    def _add_batch(self, batch: _ExampleTotals) -> None:
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
        """Sums over both parts of the data, equal to those over the whole up to float64 rounding.

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
    """Totals and counts by example over the values that are not NaN, and whether all are valid."""
    total = values @ belongs
    if bool(total.sum().isfinite()):  # one NaN would be in all totals of its cell
        return total, belongs.sum(dim=0).expand(total.shape), True
    valid = ~values.isnan()
    return values.masked_fill(~valid, 0.0) @ belongs, valid.to(belongs) @ belongs, False
