"""A bounded sample of tokens with their states, for measures that do not follow from sums; mergeable."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_TOKENS = 2048
# The priority of a slot without a token.
_VACANT = torch.iinfo(torch.int64).max


class TokenSample:
    """At most ``max_tokens`` tokens with the states of all layers, independent of the order and batches of the data.

    A token's priority is a hash of its example's key and its position there, and the sample consists of the tokens of
    lowest priority (bottom-k sampling). It is a uniform sample without replacement, and the samples of two parts of the
    data merge into the sample of the whole.

    Attributes:
        max_tokens: the largest number of tokens kept.
    """

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        """An empty sample.

        Raises:
            ValueError: ``max_tokens`` is below 1.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1; got {max_tokens}.")
        self.max_tokens = max_tokens
        # Slots are unordered: a new token takes a vacant slot or that of the token it replaces, and no other moves.
        with torch.inference_mode(False):  # or a sample begun in inference mode could not be added to outside it
            self._priority = torch.full((max_tokens,), _VACANT)
            self._example = torch.zeros(max_tokens, dtype=torch.int64)
            self._position = torch.zeros(max_tokens, dtype=torch.int64)
        self._teacher = self._student = torch.zeros(0, max_tokens, 0)

    def __len__(self) -> int:
        """Number of tokens in the sample."""
        return int((self._priority < _VACANT).sum())

    @property
    def teacher(self) -> Float[Tensor, "teacher_layer token dim"]:
        """States of all teacher layers, float32 on the CPU; tokens by ascending priority."""
        return self._teacher[:, self._order]

    @property
    def student(self) -> Float[Tensor, "student_layer token student_dim"]:
        """States of the student's layers at the same tokens, in the student's own space."""
        return self._student[:, self._order]

    @property
    def example(self) -> Int[Tensor, " token"]:
        """The key of each token's example."""
        return self._example[self._order]

    @property
    def position(self) -> Int[Tensor, " token"]:
        """Each token's position in its example."""
        return self._position[self._order]

    @property
    def _order(self) -> Int[Tensor, " token"]:
        return self._priority.argsort()[: len(self)]

    def update(
        self,
        teacher: Float[Tensor, "teacher_layer token dim"],
        student: Float[Tensor, "student_layer token student_dim"],
        example: Int[Tensor, " token"],
        position: Int[Tensor, " token"],
    ) -> None:
        """Offer tokens to the sample; each token of the data must be offered once.

        Args:
            teacher: states of all teacher layers.
            student: states of the student's layers; any width.
            example: the key of each token's example, unique in the data.
            position: position of a token within its example.

        Raises:
            ValueError: layers or widths differ from those of earlier tokens.
        """
        example, position = example.cpu(), position.cpu()
        priority = _priorities(example, position)
        new = (priority < self._priority.max()).nonzero().flatten()
        if len(new) == 0:  # as most tokens end in a long run
            return
        self._allocate(teacher, student)
        both = torch.cat([self._priority, priority[new]])
        stays = torch.zeros(len(both), dtype=torch.bool)
        stays[both.topk(self.max_tokens, largest=False).indices] = True
        slots, entering = (~stays[: self.max_tokens]).nonzero().flatten(), new[stays[self.max_tokens :]]
        self._priority[slots] = priority[entering]
        self._example[slots] = example[entering]
        self._position[slots] = position[entering]
        for stored, states in ((self._teacher, teacher), (self._student, student)):
            stored[:, slots] = states.detach()[:, entering.to(states.device)].to(stored)

    def _allocate(self, teacher: Tensor, student: Tensor) -> None:
        shapes = [(len(states), self.max_tokens, states.shape[-1]) for states in (teacher, student)]
        if len(self) == 0:
            with torch.inference_mode(False):
                self._teacher, self._student = (torch.empty(shape) for shape in shapes)
        stored = [tuple(self._teacher.shape), tuple(self._student.shape)]
        if stored != shapes:
            got, have = ([(n_layers, dim) for n_layers, _, dim in of] for of in (shapes, stored))
            raise ValueError(
                "all tokens of a sample must have the same layers and widths; got (layers, width) of teacher and "
                f"student {got}, where the sample has {have}. Make one sample for each student."
            )

    def merge(self, other: "TokenSample") -> "TokenSample":
        """The sample of both parts of the data, exactly that of one pass over the whole.

        Raises:
            ValueError: the two differ in ``max_tokens``, layers or widths.
        """
        if self.max_tokens != other.max_tokens:
            raise ValueError(
                f"only samples of equal size can be merged; got max_tokens {self.max_tokens} and {other.max_tokens}."
            )
        both = TokenSample(self.max_tokens)
        for part in (self, other):
            if len(part):
                both.update(part.teacher, part.student, part.example, part.position)
        return both


def _priorities(example: Int[Tensor, " token"], position: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """Pseudo-random int64 numbers that depend on example and position alone."""
    return _splitmix64(_splitmix64(example.long()) + position.long())


def _splitmix64(x: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), one to one on 64 bits."""
    x = x + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Int[Tensor, " token"], n_bits: int) -> Int[Tensor, " token"]:
    """Logical shift to the right; torch's own is arithmetic."""
    return (x >> n_bits) & ((1 << (64 - n_bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the same bits as an unsigned number."""
    return x - (1 << 64) if x >> 63 else x
