"""How a study names what is embedded: ``embedded/<name>``."""

from layerangles.errors import InputError

PREFIX = "embedded/"


def is_embedded(name: str) -> bool:
    """Whether a study's model or data set is one of those here, ``embedded/…``, rather than a path or a hub name."""
    return name.startswith(PREFIX)


def bare_name(name: str, allowed: tuple[str, ...], what: str) -> str:
    """A name without ``embedded/``.

    Raises:
        InputError: it is not one of those allowed.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in allowed:
        raise InputError(f"there is no embedded {what} {name!r}; allowed are {', '.join(PREFIX + a for a in allowed)}.")
    return bare
