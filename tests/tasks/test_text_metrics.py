"""Metrics of generated texts against naive definitions and known values."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import pytest
from toys.models import toy_texts
from toys.tasks import score

from kd_train.tasks.scoring.text_metrics import TEXT_METRICS, exact_match, exact_match_normalized, token_error_rate

WORDS = ["the cat sat on the mat today", "a dog barks", "nothing new here under the sun"]


def _n_grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _bleu(references: Sequence[Sequence[str]], answers: Sequence[str]) -> float:
    """BLEU from its definition, for texts with all precisions above 0, so that nothing is smoothed."""
    log_precisions = []
    for n in range(1, 5):
        matched = total = 0
        for several, answer in zip(references, answers, strict=True):
            given = _n_grams(answer.split(), n)
            most: Counter[tuple[str, ...]] = Counter()
            for reference in several:
                most |= _n_grams(reference.split(), n)
            matched += (given & most).total()
            total += given.total()
        log_precisions.append(math.log(matched / total))
    length = sum(len(answer.split()) for answer in answers)
    wanted = 0
    for several, answer in zip(references, answers, strict=True):
        lengths = [len(reference.split()) for reference in several]
        wanted += min(lengths, key=lambda n: (abs(n - len(answer.split())), n))
    brevity = min(0.0, 1 - wanted / length)
    return 100 * math.exp(sum(log_precisions) / 4 + brevity)


def _rouge(reference: Sequence[str], answer: Sequence[str], n: int) -> float:
    a, b = _n_grams(reference, n), _n_grams(answer, n)
    both = (a & b).total()
    return 2 * both / (a.total() + b.total()) if both else 0.0


def _edits(a: Sequence[str], b: Sequence[str]) -> int:
    @cache
    def between(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return between(len(a), len(b))


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    return next(
        n for n in range(len(a), -1, -1) if any(_is_within(chosen, b) for chosen in itertools.combinations(a, n))
    )


def _is_within(chosen: Sequence[str], text: Sequence[str]) -> bool:
    rest = iter(text)
    return all(word in rest for word in chosen)


def _value(name: str, references: Sequence[str | Sequence[str]], answers: Sequence[str]) -> float:
    return TEXT_METRICS[name].compute(references, answers)


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_a_perfect_answer_scores_best_and_an_empty_one_worst(name: str) -> None:
    rate = name in ("ter", "token_error_rate")
    best = {"exact_match": 1.0, "ter": 0.0, "token_error_rate": 0.0}.get(name, 100.0)
    assert _value(name, WORDS, WORDS) == pytest.approx(best)
    worst = {"ter": 100.0, "token_error_rate": 1.0}.get(name, 0.0)
    assert _value(name, WORDS, ["", "", ""]) == pytest.approx(worst)
    assert TEXT_METRICS[name].higher_is_better is not rate


@pytest.mark.parametrize("seed", range(3))
def test_bleu_equals_its_definition(seed: int) -> None:
    base = toy_texts(8, seed=seed, longest=30)
    references = [
        [f"{text} a b c d e", f"{text} k l"] if i % 2 else [f"{text} a b c d e"] for i, text in enumerate(base)
    ]
    answers = [f"{text} a b c d" for text in base]
    assert _value("bleu", references, answers) == pytest.approx(_bleu(references, answers))
    assert 0 < _value("bleu", references, answers) < 100
    shorter = [" ".join(answer.split()[:-2]) for answer in answers]
    assert _value("bleu", references, shorter) == pytest.approx(_bleu(references, shorter))


def test_bleu_takes_any_number_of_references() -> None:
    answers = ["a b c d e", "a b c d e"]
    both = _value("bleu", [["a b c d e"], ["k l m n o", "a b c d e"]], answers)
    assert both == pytest.approx(100)
    assert _value("bleu", [["a b c d e"], ["k l m n o"]], answers) < 60
    assert _value("bleu", ["a b c d e", "a b c d e"], answers) == pytest.approx(100)


def test_bleu_does_not_warn_of_tokenized_text(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["one two three four ."] * 200
    assert _value("bleu", texts, texts) == pytest.approx(100)
    assert not caplog.records


def test_chrf_equals_its_definition() -> None:
    """F2 of the precision and recall of character n-grams without spaces, averaged over n."""
    reference, answer = "the cat sat on the mat", "the cat is on a mat"
    right, given = reference.replace(" ", ""), answer.replace(" ", "")
    precisions, recalls = [], []
    for n in range(1, 7):
        a, b = _n_grams(right, n), _n_grams(given, n)
        both = (a & b).total()
        precisions.append(both / b.total())
        recalls.append(both / a.total())
    precision, recall = sum(precisions) / 6, sum(recalls) / 6
    assert _value("chrf", [reference], [answer]) == pytest.approx(
        100 * 5 * precision * recall / (4 * precision + recall)
    )


def test_ter_counts_a_moved_block_once() -> None:
    assert _value("ter", ["a b c d e f g h"], ["a b c d e f g x"]) == pytest.approx(100 / 8)
    assert _value("ter", ["a b c d e f g h"], ["e f g h a b c d"]) == pytest.approx(100 / 8)
    assert _value("ter", ["a b", "a b c d"], ["a b", "a x c"]) == pytest.approx(100 * 2 / 6)


@pytest.mark.parametrize("n", [1, 2])
def test_rouge_equals_its_definition(n: int) -> None:
    references, answers = toy_texts(20, seed=1, longest=40), toy_texts(20, seed=2, longest=40)
    pairs = [(r.split(), a.split()) for r, a in zip(references, answers, strict=True)]
    expected = 100 * sum(_rouge(r, a, n) for r, a in pairs) / 20
    assert _value(f"rouge{n}", references, answers) == pytest.approx(expected)
    assert expected > 0


def test_rouge_l_equals_the_longest_common_subsequence() -> None:
    references, answers = toy_texts(12, seed=1, longest=8), toy_texts(12, seed=2, longest=8)
    expected = 0.0
    for reference, answer in zip(references, answers, strict=True):
        a, b = reference.split(), answer.split()
        expected += 2 * _longest_common(a, b) / (len(a) + len(b))
    assert _value("rougeL", references, answers) == pytest.approx(100 * expected / 12)
    assert _value("rougeL", [["x y", "a b c"]], ["a b c"]) == pytest.approx(100)  # the best of several


def test_rouge_is_a_mean_over_examples() -> None:
    assert _value("rouge1", ["a", "a b c d e f g h"], ["a", "x"]) == pytest.approx(50)


@pytest.mark.parametrize("seed", range(3))
def test_token_error_rate_equals_its_definition(seed: int) -> None:
    references, answers = toy_texts(20, seed=seed), toy_texts(20, seed=seed + 10)
    pairs = [(r.split(), a.split()) for r, a in zip(references, answers, strict=True)]
    expected = sum(_edits(r, a) for r, a in pairs) / sum(len(r) for r, _ in pairs)
    assert token_error_rate(references, answers) == pytest.approx(expected)


def test_token_error_rate_takes_the_closest_reference() -> None:
    assert token_error_rate([["a b c d", "x y"], "k"], ["x z", "k"]) == pytest.approx(1 / 3)
    assert token_error_rate(["a"], ["b c d"]) == 3  # no limit
    assert math.isnan(token_error_rate([" "], ["a"]))


def test_exact_match_ignores_whitespace_at_both_ends() -> None:
    assert exact_match(["a b ", "A", ["x", "y"], "the y"], [" a b", "a", "y", "y"]) == 0.5


def test_normalized_exact_match_ignores_case_punctuation_and_articles() -> None:
    references = ["The Cat.", "an  apple", ["blue", "navy-blue"], "theatre", "yes"]
    assert exact_match_normalized(references, ["cat", "Apple!", "Navyblue", "atre", "no"]) == pytest.approx(3 / 5)


def test_every_metric_is_scored_by_its_name() -> None:
    scores = score(WORDS, WORDS, TEXT_METRICS)
    assert set(scores) == {"bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "exact_match", "token_error_rate"}
    assert all(isinstance(value, float) for value in scores.values())
