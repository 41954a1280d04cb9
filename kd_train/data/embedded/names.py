"""Names of packaged models and data sets in a study: ``embedded/<name>``."""

from layerangles.errors import InputError

PREFIX = "embedded/"


def is_embedded(name: str) -> bool:
    """Whether the name of a model or data set begins with ``embedded/``, and so is neither a path nor a hub name."""
    return name.startswith(PREFIX)


def bare_name(name: str, allowed: tuple[str, ...], what: str) -> str:
    """The name without ``embedded/``.

    Args:
        name: with or without ``embedded/``.
        allowed: names without it.
        what: noun for the error.

    Raises:
        InputError: the name is not allowed.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in allowed:
        raise InputError(f"there is no embedded {what} {name!r}; allowed are {', '.join(PREFIX + a for a in allowed)}.")
    return bare
