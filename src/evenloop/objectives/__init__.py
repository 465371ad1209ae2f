"""What a batch costs: one file each, discovered by file."""
