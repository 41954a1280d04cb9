"""Student directories (write, open, check), and models on disk or on the hub."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from layerangles.errors import InputError
from layerangles.files import check_absent
from layerangles.geometry.maps import MatchingMaps
from layerangles.models.matching_file import MAPS_FILE, MATCHING_FILE, Matching, read_matching
from layerangles.models.weights import check_weights, weights_sha256


@dataclass(frozen=True)
class ModelCheckpoint:
    """A transformers model on the local disk, with safetensors weights."""

    path: Path
    trust_remote_code: bool = False

    @cached_property
    def config(self) -> PretrainedConfig:
        """The model's configuration."""
        return load_config(str(self.path), trust_remote_code=self.trust_remote_code)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over the bytes of all weight files."""
        return weights_sha256(self.path)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer saved beside the model."""
        return load_tokenizer(self.path, trust_remote_code=self.trust_remote_code)

    def load_model(self) -> PreTrainedModel:
        """The model without its task head, in float32 and evaluation mode.

        Raises:
            InputError: the files lack weights that the model needs.
        """
        check_weights(self.path)
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                self.path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                output_loading_info=True,
            )
        # Marian's positions are sines, computed and not saved.
        fixed = {f"{name}.weight" for name, module in model.named_modules() if "Sinusoidal" in type(module).__name__}
        missing = sorted(key for key in info["missing_keys"] - fixed if "pooler" not in key)
        if missing:
            raise InputError(
                f"{self.path}: {len(missing)} weights of {type(model).__name__} are missing, {missing[0]} among them. "
                "The file does not fit its config.json; save the model again."
            )
        return model.eval()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StudentCheckpoint(ModelCheckpoint):
    """A student directory: a model, the record of its matching, and its maps.

    ``matching`` is None for a model that was never matched to a teacher.
    """

    name: str = "student"
    matching: Matching | None = None

    @property
    def step(self) -> int:
        """The training step of this checkpoint; 0 where it is not known."""
        return self.matching.step if self.matching else 0

    def load_maps(self) -> MatchingMaps:
        """The stored maps; empty where there are none."""
        file = self.path / MAPS_FILE
        return MatchingMaps.load(file) if file.exists() else MatchingMaps()

    def open_teacher(self) -> ModelCheckpoint:
        """The teacher named in ``matching.json``, with its weights checked against the hash there.

        Raises:
            InputError: it cannot be found, or its weights are not those that the student was trained against.
        """
        if self.matching is None:
            raise InputError(f"{self.path} does not know its teacher. Name it explicitly (--teacher).")
        reference = self.matching.teacher
        beside = (self.path / reference.path).resolve()
        found = beside if beside.is_dir() else resolve(reference.path, revision=reference.revision)
        teacher = ModelCheckpoint(found, self.trust_remote_code)
        if teacher.weights_sha256 != reference.weights_sha256:
            raise InputError(
                f"the teacher's weights changed since {self.name} was trained: {found} has the hash "
                f"{teacher.weights_sha256[:12]}…, {MATCHING_FILE} has {reference.weights_sha256[:12]}…. Restore the "
                "teacher, train the student anew, or name another teacher explicitly (--teacher and --student)."
            )
        return teacher

    def checkpoints(self) -> list["StudentCheckpoint"]:
        """The checkpoints along training in the order of their steps, with this final state last."""
        files = self.path.glob(f"checkpoints/step-*/{MATCHING_FILE}")
        along = [open_student(file.parent, self.trust_remote_code, name=self.name) for file in files]
        return [*sorted((c for c in along if c.step < self.step), key=lambda c: c.step), self]


def write_student(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    matching: Matching,
    stored_maps: MatchingMaps,
    *,
    overwrite: bool = False,
) -> None:
    """Write a student directory, which ``from_pretrained`` of transformers reads too.

    Checkpoints along training that are in the directory already are kept. ``matching.json``, which makes it a student
    directory, is written last, so that no directory with one is incomplete.

    Raises:
        InputError: the directory holds a student and ``overwrite`` is false.
    """
    check_absent(path / MATCHING_FILE, overwrite=overwrite)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path) as folder:
        beside = Path(folder)
        with quiet_transformers():
            model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        if stored_maps.by_layer:
            stored_maps.save(beside / MAPS_FILE)
        (beside / "README.md").write_text(_model_card(path.name, matching), encoding="utf-8")
        (path / MATCHING_FILE).unlink(missing_ok=True)
        (path / MAPS_FILE).unlink(missing_ok=True)
        for file in beside.iterdir():
            file.replace(path / file.name)
        matching_file = beside / MATCHING_FILE
        matching_file.write_text(matching.model_dump_json(indent=2) + "\n", encoding="utf-8")
        matching_file.replace(path / MATCHING_FILE)


def open_student(path: str | Path, trust_remote_code: bool = False, *, name: str | None = None) -> StudentCheckpoint:
    """Open a student directory and check everything that can be checked without reading its weights.

    Args:
        path: the directory.
        trust_remote_code: whether code that comes with a model may run.
        name: the student's name; by default the directory's, or that of the student a checkpoint belongs to.

    Raises:
        InputError: the directory does not exist, its ``matching.json`` is missing or invalid, or a weight file is
            truncated.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a directory. Give a student directory, such as STUDY/students/forward-seed0.")
    file = path / MATCHING_FILE
    if not file.exists():
        raise InputError(
            f"{path} holds no {MATCHING_FILE}, so it is not a student directory and does not know its teacher. "
            "Give a directory written by `layerangles train`, or name both models with --teacher and --student."
        )
    matching = read_matching(file)
    check_weights(path)
    is_checkpoint = path.resolve().parent.name == "checkpoints"
    default_name = path.resolve().parents[1].name if is_checkpoint else path.resolve().name
    return StudentCheckpoint(path, trust_remote_code, name or default_name, matching)


def resolve(model: str, *, revision: str | None = None) -> Path:
    """The local directory of a model: the directory itself, or the hub's snapshot, downloaded if necessary.

    Raises:
        InputError: it is neither a directory nor a name known to the hub (offline: to its local cache).
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f'the model "{model}" is neither a directory here nor to be had from the hub ({reason}). '
            "Check the spelling, go online, or give the path of a local copy."
        ) from error


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary with its ids, and of the ids of special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.all_special_ids))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_same_tokenizer(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, name: str) -> None:
    """Raise an :class:`InputError` unless both tokenizers give every token the same id."""
    ours, theirs = teacher.get_vocab(), student.get_vocab()
    if ours == theirs:
        return
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    token = differing[0]
    raise InputError(
        f"the tokenizer of {name} differs from its teacher's in {len(differing)} tokens: {token!r} is "
        f"{theirs.get(token, 'absent')} in the student and {ours.get(token, 'absent')} in the teacher. States can "
        "be compared only on the same tokens; choose a student with the teacher's tokenizer."
    )


def load_config(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model, without its weights.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with quiet_transformers():
            config: PretrainedConfig = AutoConfig.from_pretrained(
                model, revision=revision, trust_remote_code=trust_remote_code
            )
            return config
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f'no model configuration at "{model}" ({reason}). Give the directory or the hub name of a model.'
        ) from error


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in the directory of a model.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} holds no tokenizer that can be read ({reason}). Save one beside the model."
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and its reports of heads that are left out on purpose."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _model_card(name: str, matching: Matching) -> str:
    pairs = "\n".join(
        f"- {tower}: {', '.join(f'{s} → {t}' for s, t in tower_matching.pairs) or 'no layer is matched'} "
        f"(maps: {tower_matching.map})"
        for tower, tower_matching in matching.towers.items()
    )
    return f"""---
library_name: transformers
tags: [knowledge-distillation, layerangles]
---
# {name}

A student distilled with intermediate-layer matching, written by layerangles.

- strategy: `{json.dumps(matching.strategy)}`
- seed {matching.seed}, step {matching.step}
- teacher: `{matching.teacher.path}` (weights {matching.teacher.weights_sha256[:12]}…)
- initialisation: `{json.dumps(matching.init)}`
- loss: `{json.dumps(matching.loss)}`

Matched layers, student → teacher (0 is the embedding output, 1 the first block):
{pairs}

Load it with `transformers.AutoModelForSequenceClassification.from_pretrained`; measure its angles with
`layerangles angles`. Method: Yu, Wen and Mou, *Revisiting Intermediate-Layer Matching in Knowledge Distillation*,
Findings of IJCNLP-AACL 2025.
"""
