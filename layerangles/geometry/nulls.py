"""The null baselines: the angles if the student, or the order of layers, had nothing to do with the teacher.

An acute angle proves nothing by itself: seen from any point that is far from two others, those two lie in a similar
direction. Every null gives the same numbers as the observation, on the same tokens, so that the *excess* (observed
minus null) has an interval of its own, clustered by example.

| null | vertex, or its replacement | held fixed |
|---|---|---|
| ``N0`` | none: the closed form of independent directions | the measured norms alone |
| ``N1`` | the student's state at another token | both models, without their correspondence |
| ``N2`` | the student's own state; layer b is taken from another token | as N1, on the teacher's side |
| ``N3`` | an untrained student of the same architecture | architecture and map, without training |
| ``N4`` | a Gaussian direction of the student's norm | the student's norm alone |
| ``N5`` | the mean of the token's teacher layers | the teacher alone, seen from its middle |
| ``N6`` | the origin | the teacher alone, seen from outside |

*Another token* is one of another text, at another position (:meth:`layerangles.models.texts.Batch.tokens`). N1 to N6
are defined by Yu, Wen and Mou's angle (2025, section 4) with one part replaced; the paper itself has no null.

A new null is a name in :data:`NullName` and an entry in :data:`NULLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxtyping import Float, Int

from layerangles.errors import InputError
from layerangles.geometry.angles import Products
from layerangles.geometry.shared_space import SharedSpace, Tokens
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

NullName = Literal["N0", "N1", "N2", "N3", "N4", "N5", "N6"]

# Size of the pool of Gaussian directions that N4 draws from: a prime, so that strides over it reach every one.
_N_DIRECTIONS = 4099
# Stride between the numbers of two examples, which leaves room for the positions of one.
_POSITIONS_PER_EXAMPLE = 8191


class NullChunk(NamedTuple):
    """A few tokens, prepared for nulls that replace the cosine instead of its vertex.

    Attributes:
        teacher, vertex: the states of these tokens.
        states: all of them centred, from :func:`layerangles.geometry.angles.centred_states`.
        products: the products of ``states``.
        own: the student's layers among the products' vertices.
        partner: the teacher layers of another token among the products' vertices, for a null that needs them.
        a, b: layer a and layer b of every pair.
    """

    teacher: Float[torch.Tensor, "teacher_layer token dim"]
    vertex: Float[torch.Tensor, "student_layer token dim"]
    states: Float[torch.Tensor, "token all_states dim"]
    products: Products
    own: slice
    partner: slice
    a: Int[torch.Tensor, " pair"]
    b: Int[torch.Tensor, " pair"]


@dataclass(frozen=True)
class Null:
    """One null baseline; it has either ``vertices`` or ``cosines``.

    Attributes:
        name: its short name.
        meaning: one sentence, without its subject, for captions.
        vertices: the points it looks from at the tokens of a slice: ``[vertex, token, dim]``, one vertex for each
            student layer or one for all of them. The states it pairs these tokens with may lie outside the slice.
        cosines: its cosines ``[student_layer, pair, token]``.
        needs_untrained: whether it needs the states of an untrained student.
        needs_partner_layers: whether it needs the teacher layers of another token.
    """

    name: NullName
    meaning: str
    vertices: Callable[[SharedSpace, Tokens, slice], torch.Tensor] | None = None
    cosines: Callable[[NullChunk], torch.Tensor] | None = None
    needs_untrained: bool = False
    needs_partner_layers: bool = False


def check_nulls(nulls: Collection[str]) -> tuple[NullName, ...]:
    """Names of nulls in their fixed order, each once.

    Raises:
        InputError: a name is not known.
    """
    unknown = sorted(set(nulls) - set(NULLS))
    if unknown:
        raise InputError(f"there is no null {unknown[0]!r}; allowed are {', '.join(NULLS)}.")
    return tuple(null.name for null in NULLS.values() if null.name in nulls)


def meaning_of(name: str) -> str:
    """The meaning of a null for captions; for an unknown name ``"a null"``."""
    return NULLS[name].meaning if name in NULLS else "a null"


def _other_token(space: SharedSpace, tokens: Tokens, chunk: slice) -> torch.Tensor:
    return space.vertex[:, tokens.partner[chunk]]


def _untrained(space: SharedSpace, _tokens: Tokens, chunk: slice) -> torch.Tensor:
    if space.untrained is None:
        raise ValueError("this null needs the states of an untrained student; got none.")
    return space.untrained[:, chunk]


def _gaussian(space: SharedSpace, tokens: Tokens, chunk: slice) -> torch.Tensor:
    vertex = space.vertex[:, chunk]
    # Layers and tokens walk over the directions at different strides, so that neighbours share none.
    layers = torch.arange(len(vertex), device=vertex.device)[:, None]
    number = (tokens.key[chunk] * _POSITIONS_PER_EXAMPLE + tokens.position[chunk]).to(vertex.device)
    rows = (number * 31 + layers * 1009) % _N_DIRECTIONS
    norm: torch.Tensor = vertex.norm(dim=-1, keepdim=True)
    return _directions(vertex.shape[-1]).to(vertex)[rows] * norm


@lru_cache(maxsize=4)
def _directions(dim: int) -> Float[torch.Tensor, "direction dim"]:
    """Fixed unit vectors, uniform over the sphere."""
    drawn = torch.randn((_N_DIRECTIONS, dim), generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.normalize(drawn, dim=-1)


def _centroid(space: SharedSpace, _tokens: Tokens, chunk: slice) -> torch.Tensor:
    return space.teacher[:, chunk].mean(dim=0, keepdim=True)


def _origin(space: SharedSpace, _tokens: Tokens, chunk: slice) -> torch.Tensor:
    return torch.zeros_like(space.teacher[:1, chunk])


def independent_cosines(
    teacher_norm: Float[torch.Tensor, "teacher_layer token"],
    vertex_norm: Float[torch.Tensor, "student_layer token"],
    a: Int[torch.Tensor, " pair"],
    b: Int[torch.Tensor, " pair"],
) -> Float[torch.Tensor, "student_layer pair token"]:
    """N0: ``cos = s² / √((s² + t_a²)(s² + t_b²))`` from the squared norms, the angle if all states were orthogonal.

    60° at equal norms, 36.9° if the student's norm is twice the teacher's, 90° for a student at the origin. NaN where
    the student and a teacher layer are both zero.

    Example:
        >>> one = torch.ones(2, 1, dtype=torch.float64)
        >>> pair = torch.tensor([0]), torch.tensor([1])
        >>> [round(independent_cosines(one, s * one[:1], *pair).arccos().rad2deg().item(), 1) for s in (1, 4, 0)]
        [60.0, 36.9, 90.0]
    """
    inverse = (teacher_norm + vertex_norm[:, None]).rsqrt()
    cosines = inverse.index_select(1, a) * inverse.index_select(1, b)
    return cosines.mul_(vertex_norm[:, None])


def _independent(chunk: NullChunk) -> torch.Tensor:
    teacher_norm, vertex_norm = (x.norm(dim=-1).double().square_() for x in (chunk.teacher, chunk.vertex))
    return independent_cosines(teacher_norm, vertex_norm, chunk.a, chunk.b)


def _other_layer(chunk: NullChunk) -> torch.Tensor:
    """The angle at the student between its token's layer a and another token's layer b."""
    products, states = chunk.products, chunk.states
    n_teacher = len(products.between)
    rows = slice(n_teacher + chunk.own.start, n_teacher + chunk.own.stop)
    others = slice(n_teacher + chunk.partner.start, n_teacher + chunk.partner.stop)
    cross_other = torch.bmm(states[:, rows], states[:, others].transpose(1, 2)).permute(1, 2, 0).contiguous()
    between = products.cross[chunk.partner]  # [other layer b, layer a]
    vertex_norm = products.vertex_norm[chunk.own][:, None]
    shared, shared_other = products.cross[chunk.own] - vertex_norm / 2, cross_other - vertex_norm / 2
    inverse = (products.teacher_norm - 2 * shared).rsqrt()
    inverse_other = (products.vertex_norm[chunk.partner] - 2 * shared_other).rsqrt()
    cosines = between[chunk.b, chunk.a] - shared.index_select(1, chunk.a)
    cosines -= shared_other.index_select(1, chunk.b)
    cosines *= inverse.index_select(1, chunk.a)
    cosines *= inverse_other.index_select(1, chunk.b)
    return cosines.clamp_(-1.0, 1.0)


NULLS: dict[str, Null] = {
    null.name: null
    for null in (
        Null("N0", "the angle that independent layers of the measured norms would make", cosines=_independent),
        Null(
            "N1",
            "the same angle seen from the student's state at another token, which has nothing to do with the teacher's",
            vertices=_other_token,
        ),
        Null(
            "N2",
            "the same angle with one of the two teacher layers taken from another token",
            cosines=_other_layer,
            needs_partner_layers=True,
        ),
        Null("N3", "the same angle seen from an untrained student", vertices=_untrained, needs_untrained=True),
        Null("N4", "the same angle seen from a random point as far from the origin as the student", vertices=_gaussian),
        Null("N5", "the same angle seen from the centroid of the teacher's layers", vertices=_centroid),
        Null("N6", "the same angle seen from the origin", vertices=_origin),
    )
}
"""All nulls by name, in their fixed order."""
