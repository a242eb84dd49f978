"""The grading run: what is graded, in which worker, and what is written when."""
