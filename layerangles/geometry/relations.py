"""Distances between layers and the common-mode ratio: pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

from layerangles.geometry.angles import TOKENS_PER_CHUNK, check_states, precise_device
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


def mean_pairwise_distances(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"],
) -> Float[torch.Tensor, "state state"]:
    """Mean over tokens of the L2 distance between every two of the teacher's layers and the vertices.

    Rows and columns are the teacher layers, then the student layers, so that the blocks of the matrix are the
    three heat maps of the paper: teacher-teacher, teacher-student, student-student. Same unit as the states.

    Args:
        teacher: the teacher's layers.
        vertex: the student's layers in the teacher's space.

    Raises:
        ValueError: as :func:`vertex_cosines`.

    Example:
        >>> mean_pairwise_distances(torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]]), torch.zeros(1, 1, 2))
        tensor([[0., 4., 3.],
                [4., 0., 5.],
                [3., 5., 0.]], dtype=torch.float64)
    """
    check_states(teacher, vertex)
    states = torch.cat([precise_device(teacher), precise_device(vertex)]).double()
    n_states, n_tokens, _ = states.shape
    total = states.new_zeros((n_states, n_states))
    for start in range(0, n_tokens, TOKENS_PER_CHUNK):
        # Differences first, not the Gram matrix: a mean distance of 0 shall be 0.
        chunk = states[:, start : start + TOKENS_PER_CHUNK].transpose(0, 1).contiguous()
        total += torch.cdist(chunk, chunk, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=0)
    return total / n_tokens


def common_mode_ratio(
    teacher: Float[torch.Tensor, "teacher_layer token dim"],
    vertex: Float[torch.Tensor, "student_layer token dim"],
) -> Float[torch.Tensor, "student_layer token"]:
    """Squared distance of a vertex from the teacher's mean layer, relative to the spread of the layers around it.

    ``ρ = ‖T̄ − V‖² / mean_i ‖T_i − T̄‖²``, 0 at the centroid and unbounded above. Where ρ is large every angle
    is acute, whatever the layers are. NaN or inf where all teacher layers coincide.

    Args:
        teacher: the teacher's layers.
        vertex: the student's layers in the teacher's space.

    Raises:
        ValueError: as :func:`vertex_cosines`.

    Example:
        >>> teacher = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
        >>> common_mode_ratio(teacher, torch.tensor([[[0.0, 2.0]]]))
        tensor([[4.]], dtype=torch.float64)
    """
    check_states(teacher, vertex)
    teacher, vertex = precise_device(teacher).double(), precise_device(vertex).double()
    # Relative to the first layer, so that the spread of coincident layers is exactly 0.
    teacher, vertex = teacher - teacher[0], vertex - teacher[0]
    centroid = teacher.mean(dim=0)
    spread = (teacher - centroid).square().sum(dim=-1).mean(dim=0)
    return (vertex - centroid).square().sum(dim=-1) / spread
