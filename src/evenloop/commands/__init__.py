"""What the larger commands do, without parsing or printing; `evenloop.cli` calls and prints."""
