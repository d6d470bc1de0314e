"""The errors that are a user's to mend: one line that says what, where, and what to do."""


class NautileError(ValueError):
    """Input, an option or a file that cannot be worked with; its message is one complete line.

    The command line prints the message and exits with code 2; there is no traceback.
    """


class Stopped(Exception):  # noqa: N818 (nothing failed)
    """A run that its user ended with Ctrl-C; its message says how to go on. The command line exits with code 130."""


def first_line(error: Exception) -> str:
    """What an error says first; the name of its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
