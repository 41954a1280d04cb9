"""The tables that ``layerangles angles`` prints, as rows."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerangles import AngleResult


def summary_rows(result: "AngleResult", null: str | None = None) -> list[dict[str, object]]:
    """One row per student (and step) and student layer."""
    from layerangles.notation import interval, with_interval
    from layerangles.results.variables import heading

    rows = []
    towers = result.dataset.sizes["tower"] > 1
    keys = ("student", "step", *(["tower"] if towers else []), "student_layer")
    for row in result.summary(null).reset_index().to_dict(orient="records"):
        named = {key: row[key] for key in keys if key in row}
        of_null: dict[str, object] = {}
        if null is not None:
            of_null[heading("null_angle_deg", null)] = row["null_angle_deg"]
            of_null["excess °"] = with_interval(
                row["excess_deg"], row["excess_low"], row["excess_high"], 1, signed=True
            )
        rows.append(
            named
            | {
                heading("angle_deg"): row["angle_deg"],
                "95 % interval": interval(row["ci_low"], row["ci_high"], 1),
                **of_null,
                "smallest °": row["min_angle_deg"],
                "largest °": row["max_angle_deg"],
                heading("acute_fraction"): row["acute_fraction"],
                heading("n_tokens"): int(row["n_tokens"]),
                heading("n_degenerate"): int(row["n_degenerate"]),
            }
        )
    return rows


def whole_students(result: "AngleResult") -> list[dict[str, object]]:
    """One row per student (and step): the angles between gradients over pairs of teacher layers."""
    frame = result.dataset["whole_angle_deg"].to_dataframe(name="angle").reset_index().dropna(subset="angle")
    keys = [key for key in ("student", "step", "tower") if key in frame]
    groups = frame.groupby(keys, sort=False)["angle"].agg(["mean", "min", "max"]).reset_index()
    names = {"mean": "mean angle °", "min": "smallest °", "max": "largest °"}
    return [{str(k): v for k, v in row.items()} for row in groups.rename(columns=names).to_dict(orient="records")]


def top_dimensions(result: "AngleResult") -> list[dict[str, object]]:
    """One row per tower and teacher layer: the dimensions with the largest shares of the dot product of two tokens."""
    from layerangles.notation import percent

    data = result.dataset
    rows = []
    for tower in data["tower"].values:
        for layer in data["layer_a"].values:
            cell = data[["top_dimension", "top_dimension_share"]].sel(tower=tower, layer_a=layer)
            ranked = zip(cell["top_dimension"].values, cell["top_dimension_share"].values, strict=True)
            shares = {
                str(rank): f"{int(dimension)} ({percent(share, 1, space=' ')})"
                for rank, (dimension, share) in enumerate(ranked, start=1)
                if not math.isnan(share)
            }
            rows.append({"tower": str(tower), "teacher layer": int(layer)} | shares)
    return rows
