"""The command `gansmith`, also as `python -m gansmith`."""

import signal
import sys

# Commands that take away what they have half written where SIGTERM ends them; training saves first.
TIDY = ("export", "film", "grade", "handin", "invert", "plot", "report", "sample", "walk")


def main() -> None:
    """Run the command line; Ctrl-C while it still loads ends it without a traceback, too."""
    if sys.argv[1:2] and sys.argv[1] in TIDY:
        for name in ("SIGTERM", "SIGHUP"):  # the second where a terminal is closed; nohup has it ignored
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        from gansmith.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
