"""Flags of commands that train many runs: how many at a time, and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from gansmith.workers import Pool

_GROUP = Group("Many at a time", sort_key=90)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the runs of a command are trained."""

    workers: Annotated[
        int | None,
        Parameter(
            group=_GROUP,
            help="Runs at a time, each with its share of the cores; by default 1, with --ray as many as there is room "
            "for.",
        ),
    ] = None
    ray: Annotated[
        str | None,
        Parameter(
            group=_GROUP,
            help='Address of a Ray cluster that trains the runs, "auto" for the one this machine belongs to (extra '
            "`ray`).",
        ),
    ] = None
    gpus: Annotated[
        float, Parameter(group=_GROUP, help="GPUs that each run needs on the cluster; may be a fraction.")
    ] = 0.0

    def open(self, *, threads: int = 0) -> "Pool":
        """Return the pool; `threads` of each run, 0 for its share of the cores."""
        from gansmith.workers import open_pool

        return open_pool(self.workers, self.ray, gpus=self.gpus, threads=threads)


Placed = Annotated[Placement, Parameter(name="*")]
ONE_AT_A_TIME = Placement()
