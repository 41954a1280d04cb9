"""The two exceptions with a message for the user: what the user got wrong, and what failed while running."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message says what was got, what is allowed, and what to do next. The command line prints it without
    a traceback and leaves with exit code 2; in Python it is a ``ValueError`` like any other.
    """


class RunError(RuntimeError):
    """Something failed while running that is nobody's mistake in the input, such as a full disk.

    The message says what failed, what is left, and how to go on. The command line leaves with exit code 1.
    """
