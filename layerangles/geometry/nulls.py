"""The null baselines: what the angles would be if the student, or the order of layers, had nothing to do with them.

An acute angle proves nothing by itself: seen from any point that is far from two others, those two lie in a similar
direction. Every null answers with the same numbers as the observation, on the same tokens, so that the *excess*
(observed minus null) has an interval of its own, clustered by example.

| null | vertex, or what replaces it | what it holds fixed |
|---|---|---|
| ``N0`` | none: the closed form of independent directions | the measured norms alone |
| ``N1`` | the student's state at another token | both models, without their correspondence |
| ``N2`` | the student's own state; layer b is taken from another token | as N1, on the teacher's side |
| ``N3`` | an untrained student of the same architecture | architecture and map, without training |
| ``N4`` | a Gaussian direction of the student's norm | the student's norm alone |
| ``N5`` | the mean of the token's teacher layers | the teacher alone, seen from its middle |
| ``N6`` | the origin | the teacher alone, seen from outside |

*Another token* is one of another text, at another position (:meth:`layerangles.models.texts.Batch.partner`). N1 to N6
are defined by Yu, Wen and Mou's angle (2025, section 4) with one part replaced; the paper itself has no null.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from jaxtyping import Float, Int

from layerangles.errors import InputError
from layerangles.geometry.angles import Products
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

NullName = Literal["N0", "N1", "N2", "N3", "N4", "N5", "N6"]
NULLS: tuple[NullName, ...] = get_args(NullName)

# Of the Gaussian directions that N4 draws from: a prime, so that strides over it reach every one.
_N_DIRECTIONS = 4099


class Tokens(NamedTuple):
    """Which tokens these are.

    Attributes:
        example: the row of a token's example in its batch, counted from 0.
        partner: for every token the index of another token among these.
        number: a number of the token that does not depend on the batch; only N4 asks for it.
    """

    example: Int[torch.Tensor, " token"]
    partner: Int[torch.Tensor, " token"]
    number: Int[torch.Tensor, " token"]


def check_nulls(nulls: Sequence[str]) -> tuple[NullName, ...]:
    """The nulls in their order, each once.

    Raises:
        InputError: one of them is not known.
    """
    unknown = sorted(set(nulls) - set(NULLS))
    if unknown:
        raise InputError(f"there is no null {unknown[0]!r}; allowed are {', '.join(NULLS)}.")
    return tuple(null for null in NULLS if null in nulls)


def vertices(
    null: NullName,
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"],
    tokens: Tokens,
    untrained: Float[torch.Tensor, "student_layer token dim"] | None = None,
    chunk: slice = slice(None),
) -> Float[torch.Tensor, "vertex chunk_token dim"] | None:
    """The points a null looks from: one a student layer, or one for all; None for N0 and N2, which have none.

    Of the tokens of ``chunk`` alone; what they are paired with may lie outside it.
    """
    if null == "N1":
        return vertex[:, tokens.partner[chunk]]
    if null == "N3" and untrained is None:
        raise ValueError('the null "N3" needs the states of an untrained student; got none.')
    teacher, vertex = teacher[:, chunk], vertex[:, chunk]
    match null:
        case "N3":
            return None if untrained is None else untrained[:, chunk]
        case "N4":
            # Layers and tokens walk over the directions at different strides, so that neighbours share none.
            layers = torch.arange(len(vertex), device=vertex.device)[:, None]
            rows = (tokens.number[chunk].to(vertex.device) * 31 + layers * 1009) % _N_DIRECTIONS
            norm: torch.Tensor = vertex.norm(dim=-1, keepdim=True)
            return _directions(vertex.shape[-1]).to(vertex)[rows] * norm
        case "N5":
            return teacher.mean(dim=0, keepdim=True)
        case "N6":
            return torch.zeros_like(teacher[:1])
    return None


@lru_cache(maxsize=4)
def _directions(dim: int) -> Float[torch.Tensor, "direction dim"]:
    """Unit vectors, uniform over the sphere; always the same."""
    drawn = torch.randn((_N_DIRECTIONS, dim), generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.normalize(drawn, dim=-1)


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


def other_layer_cosines(
    products: Products,
    states: Float[torch.Tensor, "token all_states dim"],
    partner_teacher: slice,
    vertex: slice,
    a: Int[torch.Tensor, " pair"],
    b: Int[torch.Tensor, " pair"],
) -> Float[torch.Tensor, "student_layer pair token"]:
    """N2: the angle at the student between its token's layer a and another token's layer b.

    Args:
        products: of ``states``.
        states: from :func:`layerangles.geometry.angles.centred_states`.
        partner_teacher: where among the products' vertices the other token's teacher layers are.
        vertex: where among them the student's layers are.
        a: layer a of every pair.
        b: layer b of every pair.
    """
    n_teacher = len(products.between)
    rows = slice(n_teacher + vertex.start, n_teacher + vertex.stop)
    others = slice(n_teacher + partner_teacher.start, n_teacher + partner_teacher.stop)
    cross_other = torch.bmm(states[:, rows], states[:, others].transpose(1, 2)).permute(1, 2, 0).contiguous()
    between = products.cross[partner_teacher]  # [other layer b, layer a]
    vertex_norm = products.vertex_norm[vertex][:, None]
    shared, shared_other = products.cross[vertex] - vertex_norm / 2, cross_other - vertex_norm / 2
    inverse = (products.teacher_norm - 2 * shared).rsqrt()
    inverse_other = (products.vertex_norm[partner_teacher] - 2 * shared_other).rsqrt()
    cosines = between[b, a] - shared.index_select(1, a)
    cosines -= shared_other.index_select(1, b)
    cosines *= inverse.index_select(1, a)
    cosines *= inverse_other.index_select(1, b)
    return cosines.clamp_(-1.0, 1.0)
