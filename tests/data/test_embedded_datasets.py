"""The packaged data sets: their exact contents, columns and names."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kd_train.data import embedded
from kd_train.data.embedded import LabelledData, PairedData
from kd_train.data.embedded.letters_bart import LETTERS, PHONEMES
from layerangles import InputError


def _sha256(splits: object) -> str:
    """Hash of texts, labels, order and splits, on which every reported number depends."""
    return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


@pytest.fixture(scope="module")
def reviews() -> LabelledData:
    return embedded.load_dataset("embedded/movie-reviews")


def test_the_movie_reviews_have_the_pinned_content(reviews: LabelledData) -> None:
    assert reviews.label_names == ("negative", "positive")
    assert {split: len(part.texts) for split, part in reviews.splits.items()} == {
        "train": 8070,
        "dev": 1000,
        "test": 1000,
    }
    assert _sha256(reviews.splits) == ("0448efd057eb38985a38f15905058e3da47a0fe6c7fc055e1f9e45898393119c")


def test_no_review_is_repeated_and_the_labels_are_balanced(reviews: LabelledData) -> None:
    texts = [text for part in reviews.splits.values() for text in part.texts]
    assert len(texts) == len(set(texts)) == 10_070
    assert all(text == text.strip() and text for text in texts)
    for part in reviews.splits.values():
        assert len(part.labels) == len(part.texts)
        assert set(part.labels) == {0, 1}
        assert 0.45 < sum(part.labels) / len(part.labels) < 0.55


def test_the_labels_of_reviews_agree_with_their_texts(reviews: LabelledData) -> None:
    label_of = {t: label for part in reviews.splits.values() for t, label in zip(part.texts, part.labels, strict=True)}
    assert label_of["Fantastic!"] == label_of["A fun ride."] == 1
    assert label_of["Terrible."] == label_of["Effective but too tepid biopic"] == 0


def test_the_news_have_the_pinned_content() -> None:
    news = embedded.bbc_news()
    assert news.label_names == ("business", "entertainment", "politics", "sports", "tech")
    assert {split: len(part.texts) for split, part in news.splits.items()} == {"train": 1525, "dev": 300, "test": 300}
    assert _sha256(news.splits) == ("bcf5d3431ab7973af1a40ab2c2f978069eded2872f57d93fc31a818cf0841cfe")
    texts = [text for part in news.splits.values() for text in part.texts]
    assert len(set(texts)) == 2125
    assert all(set(part.labels) == set(range(5)) for part in news.splits.values())
    # One article is in Latin-1 and the others are in UTF-8: all pound signs are read correctly.
    assert any("signing from Parma" in text and "a £15.8m" in text for text in texts)
    assert not any("Â" in text or "\ufffd" in text for text in texts)


def test_the_labels_of_news_agree_with_their_texts() -> None:
    news = embedded.bbc_news()
    label_of = {t: label for part in news.splits.values() for t, label in zip(part.texts, part.labels, strict=True)}
    (about,) = (news.label_names[label_of[t]] for t in label_of if t.startswith("Ad sales boost Time Warner profit"))
    assert about == "business"
    cup = [news.label_names[label] for text, label in label_of.items() if "FA Cup" in text]
    assert len(cup) > 20
    assert cup.count("sports") > 0.9 * len(cup)


@pytest.fixture(scope="module")
def sounds() -> PairedData:
    return embedded.load_dataset("embedded/letters-to-sounds")


def test_the_words_have_the_pinned_content(sounds: PairedData) -> None:
    assert {split: len(part.sources) for split, part in sounds.splits.items()} == {
        "train": 113_493,
        "dev": 2000,
        "test": 2000,
    }
    assert _sha256(sounds.splits) == ("37824a26554ddb865cbcb3159771883b015e7c5f08091fff5aaa75fcd53c9ba2")


def test_words_have_letters_only_and_sounds_no_stress(sounds: PairedData) -> None:
    pairs = [pair for part in sounds.splits.values() for pair in zip(part.sources, part.targets, strict=True)]
    assert len({word for word, _ in pairs}) == len(pairs)
    assert {letter for word, _ in pairs for letter in word} == set(LETTERS)
    assert {phoneme for _, spoken in pairs for phoneme in spoken.split(" ")} == set(PHONEMES)
    spoken = dict(pairs)
    assert spoken["hello"] == "HH AH L OW"
    assert spoken["read"] == "R EH D"  # the first of two pronunciations
    assert spoken["aalborg"] == "AO L B AO R G"  # an entry with a comment


def test_names_are_checked_without_fetching() -> None:
    assert embedded.is_embedded("embedded/anything")
    assert not embedded.is_embedded("bert-base-uncased")
    assert embedded.EMBEDDED_MODELS == (
        "all-MiniLM-L6-v2",
        "SmolLM2-135M-Instruct",
        "bart-letters-to-sounds",
    )
    assert embedded.EMBEDDED_DATASETS == ("movie-reviews", "bbc-news", "letters-to-sounds")
    assert [embedded.dataset_columns(name) for name in embedded.EMBEDDED_DATASETS] == [
        ("text", "label"),
        ("text", "label"),
        ("source", "target"),
    ]
    assert embedded.dataset_columns("embedded/bbc-news") == ("text", "label")
    data_sets = "embedded/movie-reviews, embedded/bbc-news, embedded/letters-to-sounds"
    for ask in (embedded.dataset_columns, embedded.load_dataset):
        with pytest.raises(InputError, match=rf"no embedded data set 'embedded/sst'; allowed are {data_sets}\."):
            ask("embedded/sst")
    with pytest.raises(InputError, match=r"no embedded model 'bert'; allowed are embedded/all-MiniLM-L6-v2, embedded/"):
        embedded.model_path("bert")


def test_the_cache_is_the_folder_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERANGLES_CACHE", str(tmp_path))
    assert embedded.cache_dir() == tmp_path
    monkeypatch.delenv("LAYERANGLES_CACHE")
    assert embedded.cache_dir() == Path.home() / ".cache" / "layerangles"


def test_importing_the_module_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "tokenizers", "gguf", "pandas")
    code = f"import sys, kd_train.data.embedded; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
