"""From what was handed in to the files that are graded: folders, zips and platforms' exports, as hostile bytes."""
