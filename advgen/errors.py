"""The exceptions that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: what is wrong, where, and the way out, in a text for the person who gave it.

    The command line prints the text without a traceback and exits with :attr:`exit_code`.
    """

    exit_code = 2


class AgreedError(UserError):
    """An error that all processes of a run raise alike; only the first of them has to tell it."""


class LostContact(UserError):
    """Another process of the run is gone, or was waited for too long. Nothing is wrong with the input: start again."""

    exit_code = 75


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
