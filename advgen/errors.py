"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: what is wrong, where, and the way out, in a text for the person who gave it.

    The command line prints the text without a traceback and exits with code 2.
    """
