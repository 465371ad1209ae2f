"""What is in a batch: one file each, discovered by file."""
