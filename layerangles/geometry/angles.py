"""Angles and cosines between teacher layers as seen from a student layer: pure functions of tensors.

A *vertex* is the point from which the teacher layers are seen: a student layer's state, mapped into teacher space. Sums
of products are taken in float64 whatever the precision of the models, because a Gram matrix in float32 loses every
digit where a student layer lies close to a teacher layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Float, Int

from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

# Tokens per block of the computation, few enough for a block of 20 layers to stay in the cache.
TOKENS_PER_CHUNK = 96

# The error of a cosine from the Gram matrix, times the share of the norms that remains in a length.
_GRAM_ROUNDING = 1e-15
# The error of an angle, in radians, above which it is computed from the differences instead (6e-5 degrees).
_ANGLE_TOLERANCE = 1e-6
# With this share remaining, even an angle of 0° or 180° is off by no more than 1e-4 degrees.
_ENOUGH_LEFT = 1e-3


class ChunkGeometry(NamedTuple):
    """Cosines at a few tokens, and the degenerate directions among them."""

    cosines: Float[torch.Tensor, "student_layer pair token"]
    degenerate: Bool[torch.Tensor, "student_layer teacher_layer token"]


def layer_pairs(n_layers: int) -> tuple[Int[torch.Tensor, " pair"], Int[torch.Tensor, " pair"]]:
    """All unordered pairs of different layers, as two index tensors ``(a, b)`` with ``a < b``.

    Example:
        >>> [p.tolist() for p in layer_pairs(3)]
        [[0, 0, 1], [1, 2, 2]]
    """
    a, b = torch.triu_indices(n_layers, n_layers, offset=1)
    return a, b


def vertex_cosines(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"],
) -> Float[torch.Tensor, "student_layer teacher_layer teacher_layer token"]:
    """Cosine of the angle at each vertex between every two teacher layers, token by token.

    ``cos[s, i, j, n] = <T_i − V_s, T_j − V_s> / (‖T_i − V_s‖ ‖T_j − V_s‖)``, the general form of the cosine of
    Yu, Wen and Mou (2025, section 4), whose figure has i = 1 and identity maps.

    Args:
        teacher: hidden states of the teacher, one matrix a layer.
        vertex: states of the student's layers in teacher space, on the same tokens.

    Returns:
        float64 cosines in [−1, 1], symmetric in the two teacher layers, 1 on the diagonal. NaN where the vertex
        coincides with a teacher layer, since no direction is defined there.

    Raises:
        ValueError: the tensors differ in tokens, dimension or device, are not three-dimensional, or are not finite.

    Example:
        >>> teacher = torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]])    # 2 layers, 1 token
        >>> vertex_cosines(teacher, torch.zeros(1, 1, 2))[0, 0, 1]  # the 3-4-5 triangle
        tensor([0.6000], dtype=torch.float64)
    """
    check_states(teacher, vertex)
    n_layers, n_tokens, _ = teacher.shape
    device = precise_device(teacher).device
    a, b = (index.to(device) for index in layer_pairs(n_layers))
    # The place of each cell of the matrix in the list of pairs, followed by one entry per layer for the diagonal.
    place = torch.empty((n_layers, n_layers), dtype=torch.long, device=device)
    place[a, b] = place[b, a] = torch.arange(len(a), device=device)
    place.diagonal().copy_(torch.arange(len(a), len(a) + n_layers))
    out = torch.empty((len(vertex), n_layers, n_layers, n_tokens), dtype=torch.float64, device=device)
    for start in range(0, n_tokens, TOKENS_PER_CHUNK):
        tokens = slice(start, start + TOKENS_PER_CHUNK)
        chunk = chunk_geometry(teacher[:, tokens], vertex[:, tokens], a, b)
        diagonal = torch.ones_like(chunk.degenerate, dtype=torch.float64).masked_fill_(chunk.degenerate, torch.nan)
        cells = torch.cat([chunk.cosines, diagonal], dim=1)
        out[..., tokens] = cells.index_select(1, place.flatten()).view(len(vertex), n_layers, n_layers, -1)
    return out


def vertex_angles_deg(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"],
) -> Float[torch.Tensor, "student_layer teacher_layer teacher_layer token"]:
    """Angle at each vertex between every two teacher layers, in degrees, 0 to 180; NaN as in :func:`vertex_cosines`.

    Args:
        teacher: the teacher's layers.
        vertex: the student's layers in the teacher's space.

    Example:
        >>> corners = torch.eye(3)[:, None]  # an equilateral triangle, seen from one of its corners
        >>> vertex_angles_deg(corners[:2], corners[2:])[0, 0, 1].round(decimals=9)
        tensor([60.], dtype=torch.float64)
    """
    return angle_deg(vertex_cosines(teacher, vertex))


def angle_deg(cosines: Float[torch.Tensor, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """The angle of a cosine, in degrees from 0 to 180; NaN stays NaN.

    Accurate near 0° and 180° to about 1e-6° for the float64 cosines of this module: an error of one unit in the
    last place, 2.2e-16, is worth 1.2e-6° there. (In float32 it would be worth 0.03°.)
    """
    return cosines.arccos().rad2deg_()


class Products(NamedTuple):
    """Inner products between the states of a few tokens, in float64, tokens last.

    Every token is centred on the mean of its teacher layers: angles and distances do not depend on the origin, and this
    origin keeps the offset that the layers share out of the products.

    Attributes:
        between: ``<T_i, T_j>``.
        cross: ``<V_s, T_i>``.
        vertex_norm: ``‖V_s‖²``, the vertex' squared distance from the mean teacher layer.
    """

    between: Float[torch.Tensor, "teacher_layer teacher_layer token"]
    cross: Float[torch.Tensor, "vertex teacher_layer token"]
    vertex_norm: Float[torch.Tensor, "vertex token"]

    @property
    def teacher_norm(self) -> Float[torch.Tensor, "teacher_layer token"]:
        """``‖T_i‖²``."""
        # Contiguous like the others: every large tensor computed from these inherits their layout.
        return self.between.diagonal().T.contiguous()

    @property
    def squared_length(self) -> Float[torch.Tensor, "vertex teacher_layer token"]:
        """``‖T_i − V_s‖²``."""
        return self.teacher_norm + self.vertex_norm[:, None] - 2 * self.cross


def centred_states(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    *others: Float[torch.Tensor, "_ token dim"],
    out: Float[torch.Tensor, "tokens_or_more all_states dim"] | None = None,
) -> Float[torch.Tensor, "token all_states dim"]:
    """The states of a few tokens in float64, teacher layers first, each token centred on its mean teacher layer.

    Args:
        teacher: the teacher's layers.
        others: further states of the same tokens, in this order behind them.
        out: memory for the result; allocating it costs more than filling it.
    """
    n_teacher, n_tokens, dim = teacher.shape
    n_states = n_teacher + sum(map(len, others))
    if out is None:
        out = torch.empty((n_tokens, n_states, dim), dtype=torch.float64, device=teacher.device)
    states, start = out[:n_tokens], 0
    for part in (teacher, *others):
        states[:, start : start + len(part)] = part.transpose(0, 1)
        start += len(part)
    states -= states[:, :n_teacher].mean(dim=1, keepdim=True)
    return states


def products_of(states: Float[torch.Tensor, "token all_states dim"], n_teacher: int) -> Products:
    """Products of states from :func:`centred_states`."""
    products = torch.bmm(states, states[:, :n_teacher].transpose(1, 2)).permute(1, 2, 0).contiguous()
    vertex_norm = states[:, n_teacher:].square().sum(dim=-1).T.contiguous()
    return Products(products[:n_teacher], products[n_teacher:], vertex_norm)


def chunk_geometry(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"] | Sequence[Float[torch.Tensor, "_ token dim"]],
    a: Int[torch.Tensor, " pair"],
    b: Int[torch.Tensor, " pair"],
    products: Products | None = None,
) -> ChunkGeometry:
    """Cosines at the vertices between layers ``a[p]`` and ``b[p]``, and where a vertex coincides with a teacher layer.

    The cosines follow from :class:`Products`, computed here unless given. Tokens that the products cannot resolve are
    computed again from the differences.

    Meant for a few tokens at a time (:data:`TOKENS_PER_CHUNK`): it holds ``student_layer × pair × token`` numbers.
    """
    vertices = [precise_device(part) for part in ([vertex] if isinstance(vertex, torch.Tensor) else vertex)]
    teacher = precise_device(teacher)
    a, b = a.to(teacher.device), b.to(teacher.device)
    if products is None:
        products = products_of(centred_states(teacher, *vertices), len(teacher))
    vertex_norm = products.vertex_norm[:, None]
    shared = products.cross - vertex_norm / 2  # <T_a − V, T_b − V> = <T_a, T_b> − shared_a − shared_b
    squared_length = products.teacher_norm - 2 * shared
    inverse_length = squared_length.rsqrt()
    cosines = products.between[a, b] - shared.index_select(1, a)
    cosines -= shared.index_select(1, b)
    cosines *= inverse_length.index_select(1, a)
    cosines *= inverse_length.index_select(1, b)
    cosines.clamp_(-1.0, 1.0)

    degenerate = torch.zeros_like(squared_length, dtype=torch.bool)
    left = (squared_length / (products.teacher_norm + vertex_norm)).amin(dim=1)
    if bool((left >= _ENOUGH_LEFT).all()):  # false for NaN too
        return ChunkGeometry(cosines, degenerate)
    # Rounding matters where little of a length remains, and more so the closer an angle is to 0° or 180°.
    sine = (1 - cosines.abs().amax(dim=1).square_()).sqrt_() if len(a) else torch.ones_like(left)
    exact = left * sine * _ANGLE_TOLERANCE >= _GRAM_ROUNDING
    for s in (~exact).any(dim=1).nonzero().flatten().tolist():
        tokens = (~exact[s]).nonzero().flatten()
        spokes = teacher[:, tokens].double() - _row(vertices, s)[tokens].double()
        length = spokes.norm(dim=-1, keepdim=True)
        if not length.isfinite().all():  # NaN has one meaning here, a direction without a length
            raise ValueError("states must be finite; got NaN or an infinite number among them.")
        directions = (spokes / length).transpose(0, 1)  # NaN where the length is zero
        cosines[s, :, tokens] = torch.bmm(directions, directions.transpose(1, 2))[:, a, b].T.clamp_(-1.0, 1.0)
        degenerate[s, :, tokens] = length.squeeze(-1) == 0
    return ChunkGeometry(cosines, degenerate)


def _row(parts: Sequence[Float[torch.Tensor, "_ token dim"]], row: int) -> Float[torch.Tensor, "token dim"]:
    """One row of the concatenation of these parts."""
    for part in parts:
        if row < len(part):
            return part[row]
        row -= len(part)
    raise IndexError(row)


def check_states(teacher: torch.Tensor, vertex: torch.Tensor) -> None:
    """Raise a ``ValueError`` unless both are ``[layer, token, dim]`` over the same tokens, dimension and device."""
    for name, states in (("teacher", teacher), ("vertex", vertex)):
        if states.ndim != 3:
            raise ValueError(
                f"{name} must have the three dimensions [layer, token, dim]; got the shape {tuple(states.shape)}. "
                "Flatten batch and sequence into one token dimension first."
            )
        if not states.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers; got {states.dtype}.")
    if teacher.shape[1] != vertex.shape[1]:
        raise ValueError(
            f"teacher and vertex must cover the same tokens; got {teacher.shape[1]} and {vertex.shape[1]}. "
            "Run both models on the same batches."
        )
    if teacher.shape[2] != vertex.shape[2]:
        raise ValueError(
            f"teacher and vertex must lie in one space; got {teacher.shape[2]} and {vertex.shape[2]} dimensions. "
            "Put the student into teacher space with its matching map first."
        )
    if teacher.device != vertex.device:
        raise ValueError(f"teacher and vertex must be on one device; got {teacher.device} and {vertex.device}.")


def precise_device(states: torch.Tensor) -> torch.Tensor:
    """Move states off a device without float64 (Apple's mps); leave all others where they are."""
    return states.cpu() if states.device.type == "mps" else states
