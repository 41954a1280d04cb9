"""Modules imported at their first use, for files that are read by commands which never compute with tensors."""

import importlib
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for a module until an attribute is asked for, then for that module's attributes."""

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(self.__name__)
        # Later look-ups find the attributes here and never come back.
        self.__dict__.update(module.__dict__)
        return getattr(module, name)


def lazy_module(name: str) -> ModuleType:
    """The module of this name, imported when one of its attributes is first used.

    Type checkers see the real module::

        if TYPE_CHECKING:
            import torch
        else:
            torch = lazy_module("torch")

    The file needs ``from __future__ import annotations``, or its signatures use the module at once.
    """
    return _LazyModule(name)
