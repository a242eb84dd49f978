"""What runs on the far side of the pipe: the zygote, the sandbox, and the frames that both sides speak.

Only these files, the driver and the handout are copied to where the zygote runs. They hold no expectation, no secret.
"""
