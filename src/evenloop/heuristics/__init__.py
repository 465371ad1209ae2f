"""Which items to ask about: scores and batch rules, one file each."""
