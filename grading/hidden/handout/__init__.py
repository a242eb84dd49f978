"""What students receive: the release, its solution regions, and the files that only the handout has."""
