"""The one error style: a line that says what is wrong and what to do, and an exit code."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. Its text is the whole message: what is wrong, then what to do."""

    exit_code = 1


class UsageError(UserError):
    """The command asks for something impossible, or names something that is not there."""

    exit_code = 2
