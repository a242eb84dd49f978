"""Ways in and out of the grading run: where submissions are graded, where marks come from and go to."""
