"""What may be non-zero: one file each, discovered by file."""
