"""The one error that users see."""


class InputError(ValueError):
    """Wrong use or bad input: what, which value, what to do, in one line.

    The command line prints it and exits with 2; the window shows it and keeps its old state.
    """
