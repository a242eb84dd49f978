"""What goes wrong in the tools around the checks: one line that says what is wrong and what to do."""

from __future__ import annotations


class GradingError(Exception):
    """exit_code: 2 when the command asks for something impossible, 1 otherwise."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def not_installed(error: ImportError, what: str, requirements: str) -> GradingError:
    """What to say of a package that `what` needs and a file of requirements names."""
    needed = f"pip install -r {requirements}"
    return GradingError(f"{error.name} is not installed, which {what} needs: {needed}", exit_code=2)
