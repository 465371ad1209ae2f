"""evenloop: the life of a model, round by round, and what happens to every group."""
