"""The ``student`` section of a study file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from layerangles.models.matching_file import MapKind


class StudentSpec(BaseModel):
    """The study's ``student``: what every student looks like before training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    layers: int = Field(ge=1, description="blocks; at most the teacher's")
    decoder_layers: PositiveInt | None = Field(
        default=None, description="of the decoder of an encoder-decoder; as many as layers by default"
    )
    width: int | None = Field(default=None, ge=1, description="the teacher's by default")
    init: Literal["copied", "random"] = Field(default="copied", description="blocks of the teacher, or random ones")
    copied_layers: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="teacher blocks, 1..L; forward by default"
    )
    copied_decoder_layers: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="the same for the decoder"
    )
    embeddings: Literal["copied", "random"] | None = Field(
        default=None, description="copied where the widths agree, by default"
    )
    freeze_embeddings: bool = Field(default=False, description="leave them, and a head tied to them, as they are")
    map: MapKind | None = Field(default=None, description="identity where the widths agree, else learned, by default")
    share_map: bool = Field(default=False, description="one map for all layers of a tower (TinyBERT)")
