"""layerangles: angles between teacher layers, seen from the student, for knowledge distillation."""

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
