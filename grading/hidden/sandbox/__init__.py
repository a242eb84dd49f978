"""Where submissions run: a zygote and its confined children on the far side of a pipe, and the judge's end of it.

What the far side needs (`surroundings.WORKER_FILES`) is copied to where the zygote runs: no expectation, no secret.
"""
