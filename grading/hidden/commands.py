"""The instructor's commands, which stand beside the student's in `python -m grading`."""

from __future__ import annotations

import argparse

from grading.hidden.doors import command as doors
from grading.hidden.doors import gradescope
from grading.hidden.doors.gradebook import command as gradebook
from grading.hidden.doors.leaderboard import command as leaderboard
from grading.hidden.engine import command as grade
from grading.hidden.handout import release
from grading.hidden.reference import check, refresh
from grading.hidden.sandbox import doctor

EXAMPLES = """
instructors:
  python -m grading release --out handout --push-safe     write the handout
  python -m grading grade submissions --out graded        grade what was handed in
  python -m grading gradescope --out autograder.zip       grade on Gradescope
  python -m grading export graded --to canvas --roster gradebook.csv    marks for the platform
  python -m grading return graded --to canvas --out feedback.zip        pages for the students
  python -m grading samples submissions --out board       judge the pictures that students drew
  python -m grading check                                 is a graded function described everywhere alike?
  python -m grading refresh                               draw new hidden cases
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Register them all."""
    for command in (release, grade, gradescope, doors, gradebook, leaderboard, check, refresh, doctor):
        command.add_command(commands)
