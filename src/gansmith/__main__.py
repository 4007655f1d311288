"""The command `gansmith`, also as `python -m gansmith`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it still loads ends it without a traceback, too."""
    try:
        from gansmith.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
