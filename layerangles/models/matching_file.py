"""The schema of ``matching.json``, the record of how a student was matched to its teacher; needs no torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, field_validator

from layerangles.errors import InputError

MATCHING_FILE = "matching.json"
MAPS_FILE = "matching_maps.safetensors"
SCHEMA_VERSION = 1

MapKind = Literal["identity", "learned", "frozen", "orthogonal", "pca"]


class TeacherReference(BaseModel):
    """The teacher that a student was trained against; a relative path starts at the student's directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    revision: str | None = None
    weights_sha256: str


class TowerMatching(BaseModel):
    """The pairs ``(student_layer, teacher_layer)`` of one tower; layer 0 is the embedding output."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    pairs: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    map: MapKind


class Matching(BaseModel):
    """The content of ``matching.json``.

    Attributes:
        targets: the targets of the student's states: the teacher's own states, or the name of a control.
        changing: by tower, the state of an assignment that changes during training (its draws, its weights) at this
            step. The pairs of ``towers`` are then those of the last step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    teacher: TeacherReference
    strategy: dict[str, Any]
    seed: int
    mapping_seed: int | None = None
    step: int
    best: dict[str, Any] | None = None
    towers: dict[str, TowerMatching]
    init: dict[str, Any]
    loss: dict[str, Any]
    targets: str = "teacher"
    changing: dict[str, dict[str, Any]] | None = None

    @field_validator("strategy")
    @classmethod
    def _has_a_kind(cls, strategy: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(strategy.get("kind"), str):
            raise ValueError('a strategy needs a "kind", such as {"kind": "forward"}')
        return strategy


def read_matching(file: Path) -> Matching:
    """Read a student's ``matching.json``.

    Raises:
        InputError: the content is not valid; the message lists everything that is wrong.
    """
    try:
        return Matching.model_validate_json(file.read_bytes())
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise InputError(f"{file} is not valid: {problems}. Schema version {SCHEMA_VERSION} is understood.") from error
