"""Errors that are the user's to mend."""


class InputError(ValueError):
    """A mistake in what the user gave: a name, a path, a file, a number.

    The message is one line and says the value, what is allowed and the likely cause. The command
    line prints it without a traceback and exits with code 2.
    """


class OtherClassesError(InputError):
    """A trained network that fits but for its number of classes; the caller says what to do."""
