"""`report`: what a run or a project is shown and handed in with."""

from pathlib import Path

from gansmith.cli.output import require_parent


def report(run: Path, /, *others: Path, out: Path | None = None) -> int:
    """Make a report: what was tried, what helped and by how much, pictures, scores, commands.

    Parameters
    ----------
    run
        Run directory shown in full.
    others
        More run directories, compared with it.
    out
        A .pdf or a self-contained .html; by default report.pdf in the first run directory.
    """
    from gansmith.report import write_report
    from gansmith.runs import open_run

    out = out or run / "report.pdf"
    require_parent(out)
    write_report([open_run(path) for path in (run, *others)], out)
    print(f"report of {1 + len(others)} run{'s' if others else ''} -> {out}")
    return 0
