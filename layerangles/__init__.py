"""layerangles: angles between teacher layers, seen from the student, for knowledge distillation.

How data flow through the sub-packages, each of which imports earlier ones alone::

    geometry      states of teacher and student → maps, cosines, nulls: pure functions of tensors
    sums          cosines → sums over tokens, which add up over batches, processes and shards
    results       sums → AngleResult, by the table of everything that is measured
    models        texts and transformers models → states
    measurement   states → AngleMeter → AngleResult: measure_angles, measure_arrays
    equivalence   scores of students → the verdict on their matching strategies
    figures, report, app   results and verdicts → figures, HTML reports, the interactive comparison

Settings of a measurement are in ``settings.py``. A new null is an entry in ``geometry/nulls.py``; a new measured
quantity is a kernel and a row in ``results/variables.py``.
"""

from typing import TYPE_CHECKING, Any

from layerangles.versions import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from layerangles import figures
    from layerangles.app.notebook import compare
    from layerangles.errors import InputError
    from layerangles.measurement.measure_angles import measure_angles
    from layerangles.measurement.measure_arrays import measure_arrays
    from layerangles.models.checkpoints import open_student
    from layerangles.results.angle_result import AngleResult

__all__ = [
    "AngleResult",
    "InputError",
    "__version__",
    "compare",
    "figures",
    "measure_angles",
    "measure_arrays",
    "open_student",
]

# Imported when first asked for, so that `import layerangles` does not wait for torch and transformers.
_HOME = {
    "AngleResult": "layerangles.results.angle_result",
    "InputError": "layerangles.errors",
    "compare": "layerangles.app.notebook",
    "measure_angles": "layerangles.measurement.measure_angles",
    "measure_arrays": "layerangles.measurement.measure_arrays",
    "open_student": "layerangles.models.checkpoints",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "figures":
        return import_module("layerangles.figures")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
