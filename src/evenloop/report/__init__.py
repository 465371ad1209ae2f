"""One HTML page per study that opens offline, and the long table behind it."""
