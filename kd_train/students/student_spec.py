"""The ``student`` section of a study file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from layerangles.models.matching_file import MapKind


class StudentSpec(BaseModel):
    """The ``student`` of a study: every student's architecture and initialisation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    layers: int = Field(ge=1, description="number of blocks; at most the teacher's")
    decoder_layers: PositiveInt | None = Field(
        default=None, description="blocks of an encoder-decoder's decoder; as many as layers by default"
    )
    width: int | None = Field(default=None, ge=1, description="hidden size; the teacher's by default")
    init: Literal["copied", "random"] = Field(default="copied", description="blocks of the teacher, or random ones")
    copied_layers: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="teacher blocks, 1..L; forward by default"
    )
    copied_decoder_layers: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="the same for the decoder"
    )
    embeddings: Literal["copied", "random"] | None = Field(
        default=None, description="by default copied where the widths agree"
    )
    freeze_embeddings: bool = Field(default=False, description="do not train them, nor a head tied to them")
    map: MapKind | None = Field(default=None, description="by default identity where the widths agree, else learned")
    share_map: bool = Field(default=False, description="one map for all layers of a tower (TinyBERT)")
