"""The extras of the package, and the error that says which of them a missing package belongs to."""

from importlib.util import find_spec

from layerangles.errors import InputError

# Extra → the modules that it brings, under the names by which they are imported. `pyproject.toml` has their versions.
EXTRAS = {
    "train": ("datasets", "peft", "rapidfuzz", "rouge_score", "sacrebleu"),
    "slurm": ("submitit",),
    "app": ("dash", "waitress"),
    "export": ("kaleido",),
    "gguf": ("gguf",),
    "notebooks": ("IPython", "ipykernel", "nbclient"),
}


def require_extra(extra: str, user: str, alternative: str = "") -> None:
    """Raise unless all modules of an extra can be imported; none of them is.

    Args:
        extra: a key of :data:`EXTRAS`.
        user: what needs it, at the beginning of the message, such as "the app".
        alternative: what can be done without it, such as "write an .html file".

    Raises:
        InputError: a module is missing; the message says how to install the extra.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise InputError(_message(user, missing, extra) + (f" Or {alternative}." if alternative else ""))


def as_missing_extra(error: ModuleNotFoundError) -> InputError | None:
    """The error to show in place of a failed import, if the module belongs to an extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return InputError(_message("this", [module], extra))
    return None


def _message(user: str, missing: list[str], extra: str) -> str:
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{user} needs {' and '.join(missing)}, which {verb} not installed. Install the extra {extra!r}: "
        f"pip install 'layerangles[{extra}]'."
    )
