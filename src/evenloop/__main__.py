"""`python -m evenloop` is the `evenloop` command."""

from evenloop.cli import main

if __name__ == "__main__":  # the reference imports every module
    main()
