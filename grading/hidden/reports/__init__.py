"""What grading found, as files: results.json, feedback.html, grades.csv and summary.html."""
