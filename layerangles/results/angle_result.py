"""AngleResult: labelled angles with their provenance; saved, loaded, combined and summarised."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from layerangles.errors import InputError
from layerangles.files import atomic_write
from layerangles.notation import counted
from layerangles.results import combination
from layerangles.results.netcdf import read_dataset

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2


@dataclass(frozen=True, eq=False)
class AngleResult:
    """Angles between teacher layers, seen from the layers of students, with their provenance.

    Attributes:
        dataset: an xarray dataset over the dimensions ``student, tower, student_layer, layer_a, layer_b`` (``step``
            after ``student`` where checkpoints along training were measured, ``bin`` last for the histogram).

            The most important variables are ``angle_deg``, the mean angle over tokens in degrees, 0 to 180, with its
            interval ``ci_low`` and ``ci_high``, clustered by example; ``acute_fraction``, the share of the tokens whose
            angle is below 90°; and along ``null`` ``excess_deg``, the angle minus the null's at the same tokens, with
            ``excess_low`` and ``excess_high``. Prefixed with ``layer_`` they are over all pairs of teacher layers of a
            student layer, with ``student_`` over all its layers. :data:`layerangles.results.variables.MEASURED` has all
            variables, with their dimensions, units and meanings.

            NaN marks the diagonal (a layer makes no angle with itself), layers that a student lacks, and layers that
            cannot be put into teacher space because no map was trained for them. Layer 0 is the embedding output,
            1..L are the blocks. The attributes hold settings, hashes and versions.
    """

    dataset: xr.Dataset
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AngleResult) and self.dataset.identical(other.dataset)

    @property
    def students(self) -> list[str]:
        """Names of the students."""
        return [str(name) for name in self.dataset["student"].values]

    @property
    def steps(self) -> list[int]:
        """Training steps that were measured; empty if only one state of each student was."""
        return [int(step) for step in self.dataset["step"].values] if "step" in self.dataset.dims else []

    def at_step(self, step: int | None = None) -> "AngleResult":
        """The result at one training step (by default the last), without the ``step`` dimension.

        Raises:
            InputError: that step was not measured.
        """
        if not self.steps:
            return self
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise InputError(f"step {step} was not measured; the steps are {self.steps}.")
        return AngleResult(self.dataset.sel(step=step))

    @property
    def nulls(self) -> list[str]:
        """Names of the nulls that were measured."""
        return [str(null) for null in self.dataset["null"].values] if "null" in self.dataset.dims else []

    def check_null(self, null: str) -> None:
        """Raise an :class:`InputError` unless this null was measured."""
        if null not in self.nulls:
            raise InputError(
                f"the null {null!r} was not measured; measured were {', '.join(self.nulls) or 'none'}. Measure again "
                f'with nulls=("{null}",), on the command line with --null {null}.'
            )

    @property
    def unchanged_steps(self) -> list[tuple[str, int, int]]:
        """``(student, step, previous step)`` for every checkpoint with the same weights as the one before it.

        Such a step is not an observation of its own: nothing was trained in between, or a file was copied.
        """
        found = []
        for student in self.students if self.steps else []:
            hashes = self.dataset["weights_sha256"].sel(student=student)
            there = [step for step in self.steps if str(hashes.sel(step=step).item())]
            found += [
                (student, step, before)
                for before, step in pairwise(there)
                if hashes.sel(step=step).item() == hashes.sel(step=before).item()
            ]
        return found

    def summary(self, null: str | None = None) -> "pd.DataFrame":
        """A table with one row per student, step, tower and student layer, over all pairs of teacher layers.

        Columns: ``angle_deg`` with ``ci_low`` and ``ci_high``, ``min_angle_deg`` and ``max_angle_deg`` (smallest and
        largest mean of a pair), ``acute_fraction``, ``n_tokens`` and ``n_degenerate`` (largest number of a pair). With
        a null also ``null_angle_deg``, and ``excess_deg`` with ``excess_low`` and ``excess_high``.

        Args:
            null: name of a null.

        Raises:
            InputError: that null was not measured.
        """
        data = self.dataset
        columns = xr.Dataset(
            {
                "angle_deg": data["layer_angle_deg"],
                "ci_low": data["layer_ci_low"],
                "ci_high": data["layer_ci_high"],
                "min_angle_deg": data["angle_deg"].min(["layer_a", "layer_b"]),
                "max_angle_deg": data["angle_deg"].max(["layer_a", "layer_b"]),
                "acute_fraction": data["layer_acute_fraction"],
                "n_tokens": data["n_tokens"].max(["layer_a", "layer_b"]),
                "n_degenerate": data["n_degenerate"].max(["layer_a", "layer_b"]),
            }
        )
        if null is not None:
            self.check_null(null)
            of_null = data.sel(null=null)
            for name in ("null_angle_deg", "excess_deg", "excess_low", "excess_high"):
                columns[name] = of_null[f"layer_{name}"]
        frame = columns.reset_coords(drop=True).to_dataframe(dim_order=[str(d) for d in data["layer_angle_deg"].dims])
        return frame.dropna(subset=["angle_deg", "n_tokens"], how="all").query("n_tokens > 0 or n_degenerate > 0")

    def student_means(self) -> "pd.DataFrame":
        """A table with one row per student (and step): mean angle and share of acute angles, averaged over its layers.

        All student layers have equal weight; layers without a defined angle are left out.
        """
        by_layer = self.dataset[["layer_angle_deg", "layer_acute_fraction"]]
        means = by_layer.mean(["tower", "student_layer"]).reset_coords(drop=True)
        names = {"layer_angle_deg": "angle_deg", "layer_acute_fraction": "acute_fraction"}
        dims = [str(d) for d in means["layer_angle_deg"].dims]
        return means.rename(names).to_dataframe(dim_order=dims).dropna(how="all")

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a netCDF file (version 4), complete or not at all, and return its path.

        Args:
            path: path of the file.
            overwrite: whether an existing file may be replaced.

        Raises:
            InputError: the file exists and ``overwrite`` is false, or its directory does not exist.
        """
        encoding = {name: {"zlib": True, "complevel": 4} for name in self.dataset.data_vars}
        with atomic_write(path, overwrite=overwrite) as beside:
            self.dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AngleResult":
        """Read a file written by :meth:`save`; the result equals the one that was saved.

        Raises:
            InputError: no such file, not a result of this toolkit, or a schema version that is not understood.
        """
        if not Path(path).is_file():
            raise InputError(f"{path} is not a file. Give a result written by `layerangles angles`, such as angles.nc.")
        try:
            dataset = read_dataset(Path(path))
        except (OSError, KeyError, ValueError, RuntimeError) as error:  # what HDF5 raises depends on where it broke
            raise InputError(f"{path} is damaged, or no netCDF file ({error}).") from error
        version = dataset.attrs.get("schema_version")
        if version != SCHEMA_VERSION or "angle_deg" not in dataset:
            raise InputError(
                f"{path} is not an angle result that this version reads: schema version {version}, "
                f"understood is {SCHEMA_VERSION}. Measure again, or use the layerangles version that wrote it."
            )
        return cls(dataset)

    @classmethod
    def concat_students(cls, results: Sequence["AngleResult"]) -> "AngleResult":
        """One result with the students of several, measured on the same teacher and data with the same settings.

        Raises:
            InputError: no results, a student in two of them, or results that are not comparable.
        """
        return cls(combination.concat_students([result.dataset for result in results]))

    @classmethod
    def merge_shards(cls, results: Sequence["AngleResult"]) -> "AngleResult":
        """One result on all of the data from results on disjoint shards of it (``shard=(i, n)``).

        Equal to the result of one pass, up to the rounding of float64. Estimates from a sample of tokens (CKA,
        recoverability gap) and top dimensions do not add up, and are left out.

        Raises:
            InputError: results that are not comparable, overlap, or hold no sums.
        """
        return cls(combination.merge_shards([result.dataset for result in results]))

    @property
    def in_words(self) -> str:
        """A summary of what was measured, in one line."""
        data, steps = self.dataset, self.steps
        depths = f"{data.sizes['student_layer']} student layers × {data.sizes['layer_a']} teacher layers"
        towers = ", ".join(map(str, data["tower"].values))
        facts = [
            counted(len(self.students), "student"),
            *([f"steps {', '.join(map(str, steps))}"] if steps else []),
            f"{depths} ({towers})",
            *([f"{data.attrs['n_examples']} texts"] if "n_examples" in data.attrs else []),
            *([f"space {data.attrs['space']}"] if "space" in data.attrs else []),
            *([f"convention {data.attrs['convention']}"] if data.attrs.get("convention") == "paper" else []),
            f"nulls {', '.join(self.nulls)}" if self.nulls else "no nulls",
        ]
        return "; ".join(facts)

    def __repr__(self) -> str:
        return f"<AngleResult: {self.in_words}>"

    def _repr_html_(self) -> str:
        from layerangles.results.notebook_html import result_html

        return result_html(self.in_words, self.dataset)
