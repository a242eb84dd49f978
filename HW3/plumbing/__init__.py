"""What surrounds a training run and is no lesson: command line, devices, log, checkpoints, Ctrl-C, several processes.

Nothing in here imports a model or a graded function, so a mistake in one of those stops only who uses it.
"""
