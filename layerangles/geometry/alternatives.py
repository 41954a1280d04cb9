"""Alternative measures on a sample of tokens: debiased CKA and the recoverability gap.

Unlike all other measures they do not follow from sums over tokens, and need a sample of tokens
(:class:`layerangles.sums.token_sample.TokenSample`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# The unbiased estimator of HSIC divides by n − 3.
_FEWEST_TOKENS = 4
_TOKENS_PER_BLOCK = 128

# Folds of the cross-validation, hence also the smallest number of examples that allows one.
_N_FOLDS = 5
# Ridge penalties in units of (number of fitted tokens) × (mean variance of a dimension of the student's state): from
# next to none to one that leaves only the intercept, two per decade.
_RELATIVE_PENALTIES = np.logspace(-8, 4, 25)


# --- CKA -----------------------------------------------------------------------------------------------------


def debiased_cka(states: Sequence[Float[Tensor, "token _"]]) -> Float[Tensor, "state state"]:
    """Linear CKA between every two representations of the same tokens, by the unbiased estimator of HSIC.

    ``HSIC(x, y) / √(HSIC(x, x) HSIC(y, y))``, where with the Gram matrices K and L, their diagonals set to zero,
    ``HSIC = (tr KL + 1ᵀK1 1ᵀL1 / ((n−1)(n−2)) − 2/(n−2) 1ᵀKL1) / (n(n−3))`` (Song et al. 2012, equation 5; in CKA by
    Nguyen, Raghu and Kornblith 2021, and Murphy, Zylberberg and Fyshe 2024). The usual, biased CKA tends to 1 where
    there are more dimensions than tokens, whatever the representations are. Computed in blocks of tokens, so that no
    Gram matrix is ever held.

    Args:
        states: the representations, of any widths.

    Returns:
        float64, from −1 to 1, 0 in the mean for independent representations; unchanged by rotations, isotropic scaling
        and translations of either. NaN where all tokens of one have the same state, or its HSIC with itself is 0.

    Raises:
        ValueError: there are fewer than 4 tokens.

    Example:
        >>> x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
        >>> round(debiased_cka([x, 2 * x + 1])[0, 1].item(), 6)
        1.0
    """
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
    """Deviations from the mean over tokens, in float64; exactly 0 where all tokens agree."""
    x = x.double()
    x = x - x[..., :1, :]
    return x - x.mean(dim=-2, keepdim=True)


# --- recoverability gap --------------------------------------------------------------------------------------


def recoverability_gap(
    teacher: Float[Tensor, "teacher_layer token dim"],
    student: Float[Tensor, "student_layer token student_dim"],
    example: Int[Tensor, " token"],
) -> Float[Tensor, "student_layer teacher_layer"]:
    """The share of a teacher layer's increment that cannot be recovered from a student layer by a linear map.

    ``1 − R²`` of the ridge regression, with an intercept, from ``S_s`` to ``T_i − T_{i−1}``:
    ``Σ ‖y − ŷ‖² / Σ ‖y − ȳ‖²`` over all tokens, where dimensions count by their variance and ŷ is predicted by fits to
    other examples (scikit-learn's ``GroupKFold``, 5 folds). The penalty of each fold, student layer and teacher
    layer is chosen within the training folds: the least error on the two folds next to the one left out, each
    predicted from the three others. The 25 candidates are 1e-8 to 1e4 times the sum of squares of S in an average
    dimension, so that rotating or scaling either model's states changes nothing.

    RARE (2026) ranks the benefit of teacher layers by this quantity: matching a layer whose increment the student
    already has gains little.

    Args:
        teacher: states of all teacher layers.
        student: states of the student's layers at the same tokens, in the student's own space.
        example: a key of each token's example.

    Returns:
        float64, 0 where the student has all of it, about 1 where it has none; above 1 where chance in the folds makes
        the prediction worse than the mean. NaN for teacher layer 0, which has no increment; for increments and
        student layers that are the same at all tokens; and everywhere where there are fewer than 5 examples.
    """
    gap = torch.full((len(student), len(teacher)), torch.nan, dtype=torch.float64)
    if len(np.unique(example.numpy())) < _N_FOLDS or len(teacher) < 2:
        return gap
    folds = _folds(example)
    increments = _centred(teacher[1:].double() - teacher[:-1].double()).transpose(0, 1)
    total = increments.square().sum(dim=(0, 2))
    for layer, states in enumerate(student):
        x = _centred(states)
        moments = [_FitMoments.of(x[fold], increments[fold]) for fold in folds]
        # Computed from moments, a sum of squares may be a rounding error below zero.
        gap[layer, 1:] = _out_of_fold_errors(moments).clamp(min=0.0) / total
    return gap


def _folds(example: Int[Tensor, " token"]) -> list[Int[Tensor, " fold_token"]]:
    """Token indices of each fold; no example is in two folds."""
    from sklearn.model_selection import GroupKFold

    splits = GroupKFold(_N_FOLDS).split(np.zeros(len(example)), groups=example.numpy())
    return [torch.from_numpy(test) for _, test in splits]


@dataclass(frozen=True)
class _FitMoments:
    """Additive sums over tokens that determine a least-squares fit and its errors.

    They make it possible to try many penalties on many outputs at the cost of one, without predicting any token. The
    outputs are the dimensions of all increments, one increment after another.
    """

    n: int
    x: Float[Tensor, " in_dim"]
    y: Float[Tensor, " out_dim"]
    xx: Float[Tensor, "in_dim in_dim"]
    xy: Float[Tensor, "in_dim out_dim"]
    yy: Float[Tensor, " increment"]

    @classmethod
    def of(cls, x: Float[Tensor, "token in_dim"], increments: Float[Tensor, "token increment dim"]) -> "_FitMoments":
        y = increments.flatten(1)
        return cls(len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y, increments.square().sum(dim=(0, 2)))

    def __sub__(self, other: "_FitMoments") -> "_FitMoments":
        return _FitMoments(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __add__(self, other: "_FitMoments") -> "_FitMoments":
        return _FitMoments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def about(self, x: Float[Tensor, " in_dim"], y: Float[Tensor, " out_dim"]) -> "_FitMoments":
        """The moments about another origin."""
        left_x, left_y = self.x - self.n * x, self.y - self.n * y
        moved = torch.stack([self.x, x], dim=1)
        return _FitMoments(
            self.n,
            left_x,
            left_y,
            self.xx - moved @ torch.stack([x, left_x]),
            torch.addmm(self.xy, moved, torch.stack([y, left_y]), alpha=-1),
            self.yy - (y * (self.y + left_y)).view(len(self.yy), -1).sum(dim=1),
        )


def _out_of_fold_errors(folds: Sequence[_FitMoments]) -> Float[Tensor, " increment"]:
    """Squared errors over all folds, each predicted from the others with the penalty that validates best there."""
    everything = reduce(add, folds)
    # A fit without two neighbouring folds serves both: when one is the test fold, the other validates the penalty.
    choice: list[Tensor] = [torch.zeros(())] * len(folds)
    for a, b in zip(range(len(folds)), [*range(1, len(folds)), 0], strict=True):
        of_a, of_b = _squared_errors(everything - folds[a] - folds[b], [folds[a], folds[b]])
        choice[a], choice[b] = choice[a] + of_b, choice[b] + of_a
    errors = torch.zeros_like(everything.yy)
    for fold, validated in zip(folds, choice, strict=True):
        (of_fold,) = _squared_errors(everything - fold, [fold])
        errors += of_fold.gather(0, validated.argmin(dim=0, keepdim=True))[0]
    return errors


def _squared_errors(train: _FitMoments, tests: Sequence[_FitMoments]) -> list[Float[Tensor, "penalty increment"]]:
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
