"""`python -m evenloop` is the `evenloop` command."""

from evenloop.cli import main

main()
