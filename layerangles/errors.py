"""The one exception for what the user got wrong."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message says what was got, what is allowed, and what to do next. The command line prints it without
    a traceback and leaves with exit code 2; in Python it is a ``ValueError`` like any other.
    """
