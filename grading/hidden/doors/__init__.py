"""Ways in and out of the grading run: where submissions are graded, and where marks go."""
