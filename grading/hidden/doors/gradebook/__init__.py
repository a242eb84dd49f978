"""An nbgrader course: the written part that people mark, and the grader's points beside it."""
