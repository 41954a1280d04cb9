"""Metrics of generated texts against one or several references per example."""

import math
import re
import string
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from kd_train.tasks.scoring.metrics import Metric

References = Sequence[str | Sequence[str]]
"""One correct text, or several, for every example."""


def bleu(references: References, answers: Sequence[str]) -> float:
    """BLEU of the whole corpus, 0 to 100, as sacrebleu computes it by default (13a tokens, exponential smoothing)."""
    from sacrebleu.metrics.bleu import BLEU

    return _sacrebleu(BLEU(force=True), references, answers)  # force: no warning about tokenized text


def chrf(references: References, answers: Sequence[str]) -> float:
    """chrF2 of the whole corpus, 0 to 100: F-score of character n-grams up to 6."""
    from sacrebleu.metrics.chrf import CHRF

    return _sacrebleu(CHRF(), references, answers)


def ter(references: References, answers: Sequence[str]) -> float:
    """Translation edit rate in percent: edits per reference word, a moved block being one edit; 0 is best."""
    from sacrebleu.metrics.ter import TER

    return _sacrebleu(TER(), references, answers)


def _sacrebleu(metric: Any, references: References, answers: Sequence[str]) -> float:
    """Score of a corpus; sacrebleu takes the first references of all examples, then the second ones, and so on."""
    several = [_several(reference) for reference in references]
    most = max(map(len, several))
    streams = [[texts[i] if i < len(texts) else None for texts in several] for i in range(most)]
    return float(metric.corpus_score(list(answers), streams).score)


def rouge1(references: References, answers: Sequence[str]) -> float:
    """ROUGE-1, 0 to 100: F-measure of the common words; mean over the examples (see :func:`rouge_l`)."""
    return float(np.mean(_rouge("rouge1", references, answers)))


def rouge2(references: References, answers: Sequence[str]) -> float:
    """ROUGE-2, 0 to 100: F-measure of the common pairs of words; mean over the examples (see :func:`rouge_l`)."""
    return float(np.mean(_rouge("rouge2", references, answers)))


def rouge_l(references: References, answers: Sequence[str]) -> float:
    """ROUGE-L, 0 to 100: F-measure of the longest common subsequence of words; mean over the examples.

    Of several references, the best one counts. Words are those of Google's ``rouge-score`` without stemming: lower
    case, a–z and 0–9 only, so the metric is for English.
    """
    return float(np.mean(_rouge("rougeL", references, answers)))


def _rouge(kind: str, references: References, answers: Sequence[str]) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=False)
    return [
        100 * float(scorer.score_multi(_several(reference), answer)[kind].fmeasure)
        for reference, answer in zip(references, answers, strict=True)
    ]


def exact_match(references: References, answers: Sequence[str]) -> float:
    """Share of answers equal to one of their references, 0 to 1; whitespace at both ends is ignored."""
    return float(np.mean(matches(references, answers)))


def matches(references: References, answers: Sequence[str]) -> list[float]:
    """1 if an answer equals one of its references, whitespace at both ends ignored; else 0."""
    return _are_among([[text.strip() for text in _several(r)] for r in references], [a.strip() for a in answers])


def exact_match_normalized(references: References, answers: Sequence[str]) -> float:
    """Share of answers equal to one of their references, 0 to 1, as SQuAD and CoQA compare them.

    Letter case, punctuation, the articles a, an and the, and the amount of whitespace are ignored.
    """
    return float(np.mean(matches_normalized(references, answers)))


def matches_normalized(references: References, answers: Sequence[str]) -> list[float]:
    """1 if an answer equals one of its references, compared as in :func:`exact_match_normalized`; else 0."""
    return _are_among([[_normalized(t) for t in _several(r)] for r in references], [_normalized(a) for a in answers])


def _are_among(references: Sequence[Sequence[str]], answers: Sequence[str]) -> list[float]:
    return [float(answer in texts) for texts, answer in zip(references, answers, strict=True)]


def _normalized(text: str) -> str:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def token_error_rate(references: References, answers: Sequence[str]) -> float:
    """Edits (insertions, deletions, substitutions) per reference token over the whole corpus; 0 is best, 1 no limit.

    Tokens are separated by whitespace, such as phonemes. Of several references, the one with the fewest edits counts.
    NaN if the references have no tokens.
    """
    from rapidfuzz.distance import Levenshtein

    edits = n_tokens = 0
    for reference, answer in zip(references, answers, strict=True):
        given = answer.split()
        several = [text.split() for text in _several(reference)]
        distances = [Levenshtein.distance(tokens, given) for tokens in several]
        closest = distances.index(min(distances))
        edits += distances[closest]
        n_tokens += len(several[closest])
    return edits / n_tokens if n_tokens else math.nan


def _several(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


TEXT_METRICS: Mapping[str, Metric] = {
    "bleu": Metric(bleu),
    "chrf": Metric(chrf),
    "ter": Metric(ter, higher_is_better=False),
    "rouge1": Metric(rouge1, by_example=partial(_rouge, "rouge1")),
    "rouge2": Metric(rouge2, by_example=partial(_rouge, "rouge2")),
    "rougeL": Metric(rouge_l, by_example=partial(_rouge, "rougeL")),
    "exact_match": Metric(exact_match, by_example=matches),
    "token_error_rate": Metric(token_error_rate, higher_is_better=False),
}
