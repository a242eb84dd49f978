"""What the tracks share: one file per idea."""
