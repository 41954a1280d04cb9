"""Alternative measures that need tokens and no sums: debiased CKA and the recoverability gap, on a bounded sample.

Everything here follows from a :class:`TokenSample`, whose size does not depend on that of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_TOKENS = 2048
# The priority of a slot without a token.
_VACANT = torch.iinfo(torch.int64).max

# The unbiased estimator of HSIC divides by n − 3.
_FEWEST_TOKENS = 4
_TOKENS_PER_BLOCK = 128

# Folds of the cross-validation, hence also the fewest examples for which there is one.
_N_FOLDS = 5
# Ridge penalties in units of (tokens fitted on) × (mean variance of a dimension of the student's state): from none to
# one that leaves nothing but the intercept, two a decade.
_RELATIVE_PENALTIES = np.logspace(-8, 4, 25)


# --- the sample ----------------------------------------------------------------------------------------------


class TokenSample:
    """At most ``max_tokens`` tokens with the states of all layers: the same ones however the data come.

    A token's priority is a hash of its example's key and its position there, and the sample is the tokens of lowest
    priority (bottom-k sampling): a uniform sample without replacement, the same for all sizes and orders of batches,
    of which the samples of two parts of the data make up the sample of the whole.

    Attributes:
        max_tokens: the most tokens that are kept.
    """

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        """A sample of no tokens.

        Raises:
            ValueError: ``max_tokens`` is below 1.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1; got {max_tokens}.")
        self.max_tokens = max_tokens
        # Slots in no order: a token that comes in takes a vacant slot or that of one that goes, and no other is moved.
        with torch.inference_mode(False):  # or a sample begun in inference mode could not be added to outside it
            self._priority = torch.full((max_tokens,), _VACANT)
            self._example = torch.zeros(max_tokens, dtype=torch.int64)
            self._position = torch.zeros(max_tokens, dtype=torch.int64)
        self._teacher = self._student = torch.zeros(0, max_tokens, 0)

    def __len__(self) -> int:
        """The number of tokens in the sample."""
        return int((self._priority < _VACANT).sum())

    @property
    def teacher(self) -> Float[Tensor, "teacher_layer token dim"]:
        """States of all teacher layers, float32 on the CPU; tokens in the order of their priority, as below."""
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
        """Let tokens into the sample; each token of the data is to come once.

        Args:
            teacher: states of all teacher layers.
            student: states of the student's layers; any width.
            example: int64 keys, unique over the data.
            position: position of a token within its example.

        Raises:
            ValueError: the layers or widths are not those of the tokens before.
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
        """The sample of both parts of the data: exactly that of one pass over all of them.

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
    """Pseudo-random numbers, uniform over int64, that depend on example and position alone."""
    return _splitmix64(_splitmix64(example.long()) + position.long())


def _splitmix64(x: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), one to one on 64 bits."""
    x = x + _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Int[Tensor, " token"], n_bits: int) -> Int[Tensor, " token"]:
    """A shift to the right of the unsigned number: torch's own would fill up with the sign."""
    return (x >> n_bits) & ((1 << (64 - n_bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return x - (1 << 64) if x >> 63 else x


# --- CKA -----------------------------------------------------------------------------------------------------


def debiased_cka(x: Float[Tensor, "token dim_x"], y: Float[Tensor, "token dim_y"]) -> float:
    """Linear CKA of two representations of the same tokens, by the unbiased estimator of HSIC.

    ``HSIC(x, y) / √(HSIC(x, x) HSIC(y, y))``, where with the Gram matrices K and L, their diagonals set to zero,
    ``HSIC = (tr KL + 1ᵀK1 1ᵀL1 / ((n−1)(n−2)) − 2/(n−2) 1ᵀKL1) / (n(n−3))`` (Song et al. 2012, equation 5; in CKA by
    Nguyen, Raghu and Kornblith 2021, and Murphy, Zylberberg and Fyshe 2024). The usual, biased CKA tends to 1 where
    there are more dimensions than tokens, whatever the representations are.

    Returns:
        A number from −1 to 1, 0 in the mean for independent representations; unchanged by rotations, isotropic scaling
        and translations of either. NaN where all tokens of one have the same state, or its HSIC with itself is 0.

    Raises:
        ValueError: there are fewer than 4 tokens.

    Example:
        >>> x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
        >>> round(debiased_cka(x, 2 * x + 1), 6)
        1.0
    """
    return _cka([x, y])[0, 1].item()


def cka_matrix(sample: TokenSample) -> Float[Tensor, "state state"]:
    """Debiased linear CKA between every two of the teacher's layers and the student's, in float64.

    Rows and columns are the teacher layers, then the student layers, as in
    :func:`layerangles.geometry.angles.mean_pairwise_distances`. Range and NaN as in :func:`debiased_cka`; computed in
    blocks of tokens, so that no Gram matrix is ever held.

    Raises:
        ValueError: there are fewer than 4 tokens.
    """
    return _cka([*sample.teacher, *sample.student])


def _cka(states: Sequence[Tensor]) -> Float[Tensor, "state state"]:
    n_tokens = len(states[0]) if len(states) else 0
    if n_tokens < _FEWEST_TOKENS:
        raise ValueError(f"debiased CKA needs at least {_FEWEST_TOKENS} tokens; got {n_tokens}. Measure more text.")
    centred = [_centred(x) for x in states]
    hsic = torch.zeros((len(states), len(states)), dtype=torch.float64)
    for start in range(0, n_tokens, _TOKENS_PER_BLOCK):
        rows = slice(start, start + _TOKENS_PER_BLOCK)
        grams = torch.stack([_u_centred_gram(x, rows).flatten() for x in centred])
        hsic += grams @ grams.T  # times n(n−3), which cancels
    scale = hsic.diagonal().sqrt()
    return (hsic / scale[:, None] / scale).clamp_(-1.0, 1.0)


def _u_centred_gram(x: Float[Tensor, "token dim"], rows: slice) -> Float[Tensor, "row token"]:
    """Rows of the U-centred Gram matrix, whose inner product with another is n(n−3) times the unbiased HSIC.

    ``K_ij − (r_i + r_j)/(n−2) + t/((n−1)(n−2))`` off the diagonal and 0 on it, with the sums r of rows and t of all
    entries off the diagonal (Székely and Rizzo 2014, definition 2 and proposition 1).
    """
    n = len(x)
    row_sum = x @ x.sum(dim=0) - x.square().sum(dim=1)
    offset = row_sum / (n - 2)
    gram = x[rows] @ x.T
    gram -= offset[rows, None]
    gram -= offset
    gram += row_sum.sum() / ((n - 1) * (n - 2))
    gram.diagonal(offset=rows.start).zero_()
    return gram


def _centred(x: Float[Tensor, "*layer token dim"]) -> Float[Tensor, "*layer token dim"]:
    """In float64 with the mean over tokens taken off; exactly 0 where all tokens agree."""
    x = x.double()
    x = x - x[..., :1, :]
    return x - x.mean(dim=-2, keepdim=True)


# --- recoverability gap --------------------------------------------------------------------------------------


def recoverability_gap(sample: TokenSample) -> Float[Tensor, "student_layer teacher_layer"]:
    """The share of a teacher layer's increment that cannot be recovered from a student layer by a linear map.

    ``1 − R²`` of the ridge regression, with an intercept, from ``S_s`` to ``T_i − T_{i−1}``:
    ``Σ ‖y − ŷ‖² / Σ ‖y − ȳ‖²`` over all tokens, so that dimensions weigh as much as they vary, with predictions ŷ
    by fits to other examples (scikit-learn's ``GroupKFold``, 5 folds). The penalty of each fold, student layer and
    teacher layer is chosen within the training folds: the least error on the two folds next to the one left out, each
    predicted from the three others. There are 25 to choose from, 1e-8 to 1e4 times the sum of squares of S in a mean
    dimension, so that rotating or scaling either model's states changes nothing.

    This is the quantity by which RARE (2026) ranks the benefit of a teacher layer: little is gained from matching a
    layer whose increment the student has anyway.

    Returns:
        float64, 0 where the student has all of it, about 1 where it has nothing; above 1 where chance in the folds
        makes the prediction worse than the mean. NaN for teacher layer 0, which has no increment; for increments and
        student layers that are the same at all tokens; and everywhere where there are fewer than 5 examples.
    """
    teacher, student = sample.teacher, sample.student
    gap = torch.full((len(student), len(teacher)), torch.nan, dtype=torch.float64)
    if len(np.unique(sample.example.numpy())) < _N_FOLDS or len(teacher) < 2:
        return gap
    folds = _folds(sample.example)
    increments = _centred(teacher[1:].double() - teacher[:-1].double()).transpose(0, 1)
    total = increments.square().sum(dim=(0, 2))
    for layer, states in enumerate(student):
        x = _centred(states)
        moments = [_Moments.of(x[fold], increments[fold]) for fold in folds]
        # Computed from moments, a sum of squares may come out a rounding error below zero.
        gap[layer, 1:] = _out_of_fold_errors(moments).clamp(min=0.0) / total
    return gap


def _folds(example: Int[Tensor, " token"]) -> list[Int[Tensor, " fold_token"]]:
    """The tokens of each fold; no example is in two."""
    from sklearn.model_selection import GroupKFold

    splits = GroupKFold(_N_FOLDS).split(np.zeros(len(example)), groups=example.numpy())
    return [torch.from_numpy(test) for _, test in splits]


@dataclass(frozen=True)
class _Moments:
    """Sums over tokens of everything that least squares asks for; those of two sets of tokens add up.

    From them, many penalties are tried on many outputs at the price of one, without a prediction for any token. The
    outputs are those of all increments, one after another.
    """

    n: int
    x: Float[Tensor, " in_dim"]
    y: Float[Tensor, " out_dim"]
    xx: Float[Tensor, "in_dim in_dim"]
    xy: Float[Tensor, "in_dim out_dim"]
    yy: Float[Tensor, " increment"]

    @classmethod
    def of(cls, x: Float[Tensor, "token in_dim"], increments: Float[Tensor, "token increment dim"]) -> "_Moments":
        y = increments.flatten(1)
        return cls(len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y, increments.square().sum(dim=(0, 2)))

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def about(self, x: Float[Tensor, " in_dim"], y: Float[Tensor, " out_dim"]) -> "_Moments":
        """The moments about another origin."""
        left_x, left_y = self.x - self.n * x, self.y - self.n * y
        moved = torch.stack([self.x, x], dim=1)
        return _Moments(
            self.n,
            left_x,
            left_y,
            self.xx - moved @ torch.stack([x, left_x]),
            torch.addmm(self.xy, moved, torch.stack([y, left_y]), alpha=-1),
            self.yy - (y * (self.y + left_y)).view(len(self.yy), -1).sum(dim=1),
        )


def _out_of_fold_errors(folds: Sequence[_Moments]) -> Float[Tensor, " increment"]:
    """Squared errors over all folds, each predicted from the others with the penalty that is best among those."""
    everything = reduce(add, folds)
    # A fit without both of two neighbours serves either: where the one is left out for good, the other validates.
    choice: list[Tensor] = [torch.zeros(())] * len(folds)
    for a, b in zip(range(len(folds)), [*range(1, len(folds)), 0], strict=True):
        of_a, of_b = _squared_errors(everything - folds[a] - folds[b], [folds[a], folds[b]])
        choice[a], choice[b] = choice[a] + of_b, choice[b] + of_a
    errors = torch.zeros_like(everything.yy)
    for fold, validated in zip(folds, choice, strict=True):
        (of_fold,) = _squared_errors(everything - fold, [fold])
        errors += of_fold.gather(0, validated.argmin(dim=0, keepdim=True))[0]
    return errors


def _squared_errors(train: _Moments, tests: Sequence[_Moments]) -> list[Float[Tensor, "penalty increment"]]:
    """Squared errors of the ridge regressions fitted to ``train``, with every penalty, on each of ``tests``.

    With ``XᵀX = V diag(λ) Vᵀ`` the coefficients are ``W = V diag(1/(λ + penalty)) VᵀXᵀY``, and the error is
    ``‖Y‖² − 2 tr WᵀXᵀY + tr WᵀXᵀX W`` from the test's moments about the training means.
    """
    mean_x, mean_y = train.x / train.n, train.y / train.n
    centred = train.about(mean_x, mean_y)
    eigenvalues, vectors = torch.linalg.eigh(centred.xx)
    penalties = torch.from_numpy(_RELATIVE_PENALTIES) * eigenvalues.mean()
    inverse = 1 / (eigenvalues + penalties[:, None])
    in_dim, n_increments = len(eigenvalues), len(train.yy)
    xy = vectors.T @ centred.xy
    by_increment = xy.view(in_dim, n_increments, -1).transpose(0, 1).contiguous()
    gram = by_increment @ by_increment.mT
    errors = []
    for test in tests:
        of_test = test.about(mean_x, mean_y)
        explained = inverse @ (xy * (vectors.T @ of_test.xy)).view(in_dim, n_increments, -1).sum(dim=-1)
        size = (inverse @ (gram * (vectors.T @ of_test.xx @ vectors)) * inverse).sum(dim=-1).T
        errors.append(of_test.yy - 2 * explained + size)
    return errors
