"""Marks that people decide: lateness, extensions, points set by hand; and what the results folder remembers of them."""
