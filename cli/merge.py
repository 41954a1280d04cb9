"""``layerangles merge``: add up results of disjoint shards."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_written


def merge(
    results: Annotated[list[Path], typer.Argument(help="Results of shards, written by `layerangles angles --shard`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The merged result (netCDF).")] = Path("angles.nc"),
    overwrite: options.Overwrite = False,
) -> None:
    """Add up results that were measured on disjoint shards of the same data.

    Example: layerangles merge shard-0.nc shard-1.nc --output angles.nc
    """
    from layerangles import AngleResult
    from layerangles.files import check_absent

    check_absent(output, overwrite=overwrite)
    merged = AngleResult.merge_shards([AngleResult.load(path) for path in results])
    print_written(merged.save(output, overwrite=overwrite))
