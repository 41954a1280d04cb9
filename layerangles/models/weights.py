"""Weight files of models: safetensors only, checked by their headers, identified by a hash; needs no torch."""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from layerangles.errors import InputError
from layerangles.files import sha256_of_file
from layerangles.models.matching_file import MAPS_FILE


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model without its matching maps, sorted by name.

    Raises:
        InputError: the directory has none.
    """
    files = sorted(file for file in path.glob("*.safetensors") if file.name != MAPS_FILE)
    if not files:
        pickled = sorted(file.name for file in path.glob("*.bin"))
        hint = f" It has {pickled[0]}; convert it, since pickled weights are not read." if pickled else ""
        raise InputError(f"{path} holds no weights (*.safetensors).{hint}")
    return files


def check_weights(path: Path) -> None:
    """Raise an :class:`InputError` if a weight file of a model is damaged or truncated; reads only headers."""
    for file in weight_files(path):
        try:
            with safe_open(file, framework="np"):
                pass
        except SafetensorError as error:
            raise InputError(f"{file} is damaged or cut short ({error}). Copy it again, or train anew.") from error


def weights_sha256(path: Path) -> str:
    """SHA-256 of a model's weights: of its file, or of the list of hashes if it has several files."""
    hashes = [(file.name, sha256_of_file(file)) for file in weight_files(path)]
    return hashes[0][1] if len(hashes) == 1 else hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
