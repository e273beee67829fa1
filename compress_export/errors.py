"""Errors of the command line itself."""


class UsageError(ValueError):
    """The user's mistake: wrong options, an existing or unwritable output. Exit code 2.

    The message is one line that gives the value, what is allowed and the likely cause.
    """


class Terminated(BaseException):
    """SIGTERM arrived. A BaseException, like KeyboardInterrupt, so that no handler of ordinary
    errors swallows it and clean-up still runs. Exit code 143."""
