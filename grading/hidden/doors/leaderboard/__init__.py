"""Students' pictures: read as hostile bytes, judged by a judge of which they know nothing, and compared."""
