"""Sums of the common-mode ratio, of distances, and of the structured cosine of the paper's code."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from layerangles.geometry.angles import TOKENS_PER_CHUNK, centred_states
from layerangles.sums.clustered_mean import ClusteredMean, merged


class RelationSums:
    """Sums of one student tower over tokens; mergeable, of fixed size.

    Attributes:
        common_mode: ``ρ = ‖T̄ − V_s‖² / mean_i ‖T_i − T̄‖²`` per ``[student_layer]``; tokens whose teacher layers all
            coincide are left out. ``student_common_mode`` the same over all layers.
        teacher_teacher, teacher_student, student_student: totals of L2 distances, ``[layer_a, layer_b]``,
            ``[student_layer, layer_a]`` and ``[student_layer, student_layer_b]``.
        structured: totals of ``cos(T_m(i) − T_m(j), V_i − V_j)`` for matched student layers i and j, with their
            teacher layers m(i), m(j); ``structured_count`` the tokens in it. The "structured cosine" of the paper's
            code; left out where a difference has no length, 0 tokens where a layer is not matched.
        n_tokens: tokens in the distances.
    """

    def __init__(
        self,
        n_student_layers: int,
        n_teacher_layers: int,
        matched: Mapping[int, int],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        """Sums over no tokens.

        Args:
            n_student_layers: layers that are measured.
            n_teacher_layers: all of the teacher's layers.
            matched: the teacher layer of each matched student layer, by its row among those measured.
            device: device of the sums.
        """
        self._rows = torch.tensor(sorted(matched), dtype=torch.long, device=device)
        self._targets = torch.tensor([matched[row] for row in sorted(matched)], dtype=torch.long, device=device)
        self.common_mode = ClusteredMean.zeros(n_student_layers, device=device)
        self.student_common_mode = ClusteredMean.zeros(device=device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.teacher_teacher = zeros(n_teacher_layers, n_teacher_layers)
        self.teacher_student = zeros(n_student_layers, n_teacher_layers)
        self.student_student = zeros(n_student_layers, n_student_layers)
        self.structured = torch.zeros_like(self.student_student)
        self.structured_count = torch.zeros_like(self.student_student)
        self.n_tokens = zeros()

    def update(
        self,
        teacher: Float[Tensor, "teacher_layer token dim"],
        vertex: Float[Tensor, "student_layer token dim"],
        example: Int[Tensor, " token"],
    ) -> None:
        """Add the tokens of whole examples, with the student's states in teacher space."""
        n_examples = int(example.max()) + 1 if len(example) else 0
        total = self.teacher_teacher.new_zeros((len(vertex), n_examples))
        count = torch.zeros_like(total)
        for start in range(0, len(example), TOKENS_PER_CHUNK):
            chunk = slice(start, start + TOKENS_PER_CHUNK)
            states = centred_states(teacher[:, chunk], vertex[:, chunk])
            products = torch.bmm(states, states.transpose(1, 2))
            self._add_distances(products, len(teacher))
            self._add_structured(products, len(teacher))
            squared = products.diagonal(dim1=1, dim2=2).T  # squared distances from the mean teacher layer
            ratio = squared[len(teacher) :] / squared[: len(teacher)].mean(dim=0)
            defined = ratio.isfinite()
            belongs = torch.nn.functional.one_hot(example[chunk], n_examples).to(total)
            total += ratio.masked_fill(~defined, 0.0) @ belongs
            count += defined.to(total) @ belongs
        self.common_mode.add(total, count)
        self.student_common_mode.add(total.sum(dim=0), count.sum(dim=0))
        self.n_tokens += len(example)

    def _add_distances(self, products: Float[Tensor, "token state state"], n_teacher: int) -> None:
        squared = products.diagonal(dim1=1, dim2=2)
        # Rounding may leave a little below zero, or above it, where two layers coincide: 1e-8 of their norm.
        distance = (squared[:, :, None] + squared[:, None] - 2 * products).clamp_(min=0.0).sqrt_().sum(dim=0)
        self.teacher_teacher += distance[:n_teacher, :n_teacher].fill_diagonal_(0.0)
        self.teacher_student += distance[n_teacher:, :n_teacher]
        self.student_student += distance[n_teacher:, n_teacher:].fill_diagonal_(0.0)

    def _add_structured(self, products: Float[Tensor, "token state state"], n_teacher: int) -> None:
        student, targets = self._rows + n_teacher, self._targets
        between = products[:, targets[:, None], student]  # <T_m(i), V_j>
        own = between.diagonal(dim1=1, dim2=2)
        dot = own[:, :, None] + own[:, None] - between - between.transpose(1, 2)
        cosine = dot * (_squared_lengths(products, targets) * _squared_lengths(products, student)).rsqrt()
        defined = cosine.isfinite()
        index = (self._rows[:, None], self._rows)
        self.structured[index] += cosine.clamp(-1.0, 1.0).masked_fill(~defined, 0.0).sum(dim=0)
        self.structured_count[index] += defined.sum(dim=0)

    def merge(self, other: "RelationSums") -> "RelationSums":
        """Sums over both parts of the data."""
        return merged(self, other)


def _squared_lengths(
    products: Float[Tensor, "token state state"], rows: Int[Tensor, " row"]
) -> Float[Tensor, "token row row"]:
    """``‖X_i − X_j‖²``; 0 where the two are the same."""
    some = products[:, rows[:, None], rows]
    norm = some.diagonal(dim1=1, dim2=2)
    return norm[:, :, None] + norm[:, None] - 2 * some
