"""Metrics of labels and of numbers, and a model's answers to be scored."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

Answer = TypeVar("Answer")


class Metric(NamedTuple):
    """A metric of answers against references, and whether more of it is better.

    Attributes:
        compute: of all references and answers.
        by_example: what the metric is the mean of, one number an example; None where it is no such mean.
    """

    compute: Callable[[Sequence[Any], Sequence[Any]], float]
    higher_is_better: bool = True
    by_example: Callable[[Sequence[Any], Sequence[Any]], list[float]] | None = None


def right_answers(references: Sequence[Any], answers: Sequence[Any]) -> list[float]:
    """1 where the answer is right, 0 elsewhere."""
    return [float(r == a) for r, a in zip(references, answers, strict=True)]


def accuracy(references: Sequence[Any], answers: Sequence[Any]) -> float:
    """Share of right answers, 0 to 1."""
    return float(np.mean(right_answers(references, answers)))


def f1(labels: Sequence[int], answers: Sequence[int]) -> float:
    """F1 of label 1, of two, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, zero_division=0.0))


def f1_macro(labels: Sequence[int], answers: Sequence[int]) -> float:
    """Mean of the labels' F1, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, answers, average="macro", zero_division=0.0))


def matthews_correlation(labels: Sequence[int], answers: Sequence[int]) -> float:
    """Matthews' correlation of answers and labels, −1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, answers))


LABEL_METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy, by_example=right_answers),
    "f1": Metric(f1),
    "f1_macro": Metric(f1_macro),
    "matthews_correlation": Metric(matthews_correlation),
}


def pearson(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Pearson's correlation, −1 to 1; NaN where the answers (or the numbers) are all alike, or only one."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, numbers, answers)


def spearman(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Spearman's rank correlation, −1 to 1; NaN where the answers (or the numbers) are all alike, or only one."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, numbers, answers)


def _correlation(of: Callable[[Any, Any], Any], numbers: Sequence[float], answers: Sequence[float]) -> float:
    if len(numbers) < 2:
        return math.nan
    # scipy warns where it answers NaN; here that is an answer like any other, and stands in the metrics file as one.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="An input array is (nearly )?constant")
        return float(of(numbers, answers).statistic)


def mean_squared_error(numbers: Sequence[float], answers: Sequence[float]) -> float:
    """Mean of the squared differences, in the numbers' own unit squared; 0 is best."""
    return float(np.mean(squared_errors(numbers, answers)))


def squared_errors(numbers: Sequence[float], answers: Sequence[float]) -> list[float]:
    """The squared differences."""
    squares: list[float] = np.square(np.asarray(numbers, float) - np.asarray(answers, float)).tolist()
    return squares


NUMBER_METRICS: Mapping[str, Metric] = {
    "pearson": Metric(pearson),
    "spearman": Metric(spearman),
    "mean_squared_error": Metric(mean_squared_error, higher_is_better=False, by_example=squared_errors),
}


def perplexity(n_tokens: Sequence[int], negative_log_likelihoods: Sequence[float]) -> float:
    """``exp(Σ −log p / Σ n)`` over the predicted tokens of all examples, 1 at best; infinite where it overflows.

    Args:
        n_tokens: how many tokens are predicted, one number an example.
        negative_log_likelihoods: summed over these tokens, in nats, one number an example.
    """
    mean = math.fsum(negative_log_likelihoods) / sum(n_tokens)
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


def over_batches(
    lengths: Sequence[int],
    answer: Callable[[list[int]], Sequence[Answer]],
    model: PreTrainedModel,
    accelerator: Accelerator,
    *,
    batch_size: int = 64,
) -> list[Answer]:
    """One answer an example, in the order of the examples: asked for in batches of like length, in evaluation mode.

    Processes share the batches, and every process gets all answers.

    Args:
        lengths: one an example, by which batches are made.
        answer: given the numbers of some examples, answers in that order.
        model: put into evaluation mode meanwhile.
        accelerator: of the run.
        batch_size: the most examples a batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    was_training = model.training
    model.train(False)
    answered: list[tuple[int, Answer]] = []
    with torch.inference_mode(), accelerator.autocast():
        for rows in batches[accelerator.process_index :: accelerator.num_processes]:
            answered += zip(rows, answer(rows), strict=True)
    model.train(was_training)
    everywhere = gather_object(answered) if accelerator.num_processes > 1 else answered
    return [found for _, found in sorted(everywhere, key=lambda pair: pair[0])]


class Predictions(NamedTuple):
    """What a metric compares, one entry an example."""

    references: Sequence[Any]
    answers: Sequence[Any]


def generate(
    model: PreTrainedModel,
    inputs: Mapping[str, Int[Tensor, "example position"]],
    *,
    max_new_tokens: int,
    pad_token_id: int,
    eos_token_id: int | list[int] | None,
    beams: int = 1,
) -> list[list[int]]:
    """What a model writes: the most likely next token each time, or the best of a beam search.

    Whatever else the model's generation config asks for (sampling, penalties, least lengths) is left aside, so that
    a teacher and its students are decoded alike.

    Args:
        model: an encoder-decoder, or a decoder.
        inputs: ``input_ids`` and ``attention_mask`` on the model's device; for a decoder padded on the left.
        max_new_tokens: the most tokens an example.
        pad_token_id: fills what ended earlier.
        eos_token_id: the token (or tokens) after which nothing is written.
        beams: 1 is greedy.

    Returns:
        Token ids, special tokens among them; without the tokens of a decoder's prompt.
    """
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        use_cache=True,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    with _generating_by(model, config):
        written = model.generate(**inputs, generation_config=config)  # type: ignore[operator]
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    rows: list[list[int]] = written[:, start:].tolist()
    return rows


@contextmanager
def _generating_by(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    # transformers fills in from the model's own config whatever ours leaves open.
    theirs, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = theirs
