"""kd_train: students distilled under different layer matchings, written as directories that layerangles reads."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_train.outcome.opened_study import OpenedStudy, open_study

__all__ = ["OpenedStudy", "open_study"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for: the command line names this package long before it needs torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("kd_train.outcome.opened_study"), name)


def __dir__() -> list[str]:
    return __all__
