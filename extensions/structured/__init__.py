"""Expressions as sequences of grammar productions; `python -m extensions.structured` is the command."""
