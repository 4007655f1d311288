"""`course` and `grade`: a kit for a class, and what its students handed in."""

from pathlib import Path
from typing import Literal

from gansmith.cli.output import Whole, print_table


def course(
    folder: Path,
    /,
    *,
    settings: Path | None = None,
    title: str | None = None,
    data: str | None = None,
    seed: Whole | None = None,
) -> int:
    """Write a class kit: assignment sheet, starter notebook, data, the grader's settings.

    Parameters
    ----------
    folder
        A new or an empty folder.
    settings
        A grade.toml to begin with; by default the usual settings.
    title
        Title of the assignment.
    data
        The images to train on, a data set's name or a path; mnist by default.
    seed
        NumPy's seed of the grid's latents; 504 by default.
    """
    from gansmith import api

    written = api.course(folder, settings=settings, title=title, data=data, seed=seed)
    for path in sorted(path for path in written.rglob("*") if path.is_file()):
        print(path)
    print(
        f"give for-students/ to the class; grade with: gansmith grade {written}/submissions "
        f"--settings {written}/grade.toml"
    )
    return 0


def grade(
    handins: Path,
    /,
    *,
    settings: Path | None = None,
    seed: Whole | None = None,
    out: Path | None = None,
    sandbox: Literal["auto", "bubblewrap", "unshare", "limits"] = "auto",
    jobs: Whole = 0,
) -> int:
    """Run every hand-in in a folder within bounds, measure its images, and write a table and a page for each student.

    Parameters
    ----------
    handins
        Folder with a folder or an archive for each student.
    settings
        The grade.toml of the class kit: what is asked for, limits, points.
    seed
        NumPy's seed of the grid's latents, instead of the one in the settings.
    out
        Folder for the table and the pages; by default grades beside the hand-ins.
    sandbox
        How hand-ins are isolated; auto takes the first kind that works here and says which. limits leaves the
        network open.
    jobs
        Hand-ins that run at once; one on each core by default.
    """
    from gansmith import api

    grades = api.grade(
        handins,
        settings=settings,
        seed=seed,
        out=out,
        sandbox=sandbox,
        jobs=jobs,
    )
    header, rows = grades.table()
    shown = [k for k, name in enumerate(header) if name not in ("missing files", "same as", "notes")]
    print_table([header[k] for k in shown], [[row[k] for k in shown] for row in rows], width=160)
    print(f"table and pages -> {grades.directory}/index.html, results.csv, results.md, students/")
    return 0
