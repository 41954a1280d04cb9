"""Docstrings in the form that mkdocstrings needs: roles such as ``:func:`layerangles.measure_angles``` become links."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(?P<target>[\w.]+)`")
# griffe recognizes doctests under the plural only.
_EXAMPLE = re.compile(r"^(\s*)Example:(\s*)$", re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites every docstring of a package once the package is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:  # noqa: ARG002
        """Rewrite a package's docstrings; griffe calls this when the whole package is loaded."""
        _rewrite(pkg)


def _rewrite(obj: griffe.Object) -> None:
    if obj.docstring is not None:
        obj.docstring.value = as_markdown(obj.docstring.value, obj)
    for member in obj.members.values():
        if isinstance(member, griffe.Object):  # an alias is rewritten at its source
            _rewrite(member)


def as_markdown(text: str, scope: griffe.Object) -> str:
    """A docstring with its roles as links; a link without a target becomes code at the end of the build."""

    def link(role: re.Match[str]) -> str:
        target = role["target"]
        return f'<autoref identifier="{full_name(target, scope)}" optional><code>{target}</code></autoref>'

    return _EXAMPLE.sub(r"\1Examples:\2", _ROLE.sub(link, text))


def full_name(target: str, scope: griffe.Object) -> str:
    """The full name of an object that a docstring of ``scope`` names."""
    first, dot, rest = target.partition(".")
    try:
        name = scope.resolve(first) + dot + rest
    except griffe.NameResolutionError:
        name = target
    # The package imports the function heatmap under the name of its module, layerangles.figures.heatmap.
    last = name.rpartition(".")[2]
    try:
        leads_to = scope.modules_collection[name]
    except KeyError:
        return name
    return f"{name}.{last}" if leads_to.is_module and last in leads_to.members else name
