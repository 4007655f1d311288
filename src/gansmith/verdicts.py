"""Verdicts and comparisons of verdicts, shown as text in a terminal and as tables in a notebook."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SCALE = "1.00 = as close as other real images"
_FEWEST = 1_000  # images of which an FD ratio says how good samples are


class Verdict(dict[str, Any]):
    """The result of evaluating one set of samples, as one JSON object; shows itself as a table.

    >>> gs.evaluate(run, quick=True).headline()
    'INVALID: FD ratio ... (1.00 = as close as other real images; ...; 2,000 samples); failed: ...'

    Its keys: fd_ratio (samples against test images over validation images against test images; 1.00 is as close as
    other real images), valid (whether every gate passed), n, label_accuracy, fd_ratios, metrics, gates, notices and
    what was compared with what.
    """

    def headline(self) -> str:
        """Return one sentence: the FD ratio, how it was measured, and whether it is valid."""
        if self["fd_ratio"] is None:
            kid = self["metrics"].get("kid_z")
            text = "no FD ratio"
            if kid is not None:
                text += f"; KID {kid['value']:.1f} standard deviations from real images"
        else:
            parts = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self["fd_ratios"].items())
            text = f"FD ratio {self['fd_ratio']:.2f} ({_SCALE}; {parts}; {self['n']:,} samples)"
        failed = [name for name, gate in self["gates"].items() if gate["ok"] is False]
        if failed:
            return f"INVALID: {text}; failed: {', '.join(failed)}"
        if self["fd_ratio"] is not None and not self["valid"]:
            return f"INVALID: {text}; no gate ran"
        unchecked = [name for name, gate in self["gates"].items() if gate["ok"] is None]
        if unchecked:
            return f"{text}; not checked: {', '.join(unchecked)}"
        return f"{text}; {'all gates passed' if self['gates'] else 'no gate ran'}"

    def origin(self) -> str:
        """Return a sentence on what was compared with what."""
        drawn = "" if self["seed"] is None else f" of seed {self['seed']}"
        age = "" if self["images_seen"] is None else f" after {self['images_seen']:,} images"
        target = self.get("target", "")
        samples = "1 sample" if self["n"] == 1 else f"{self['n']:,} samples"
        return f"{target}{age}: {samples}{drawn} compared with {self['data']}, {self['tier']} tier"

    def metric_rows(self) -> list[tuple[str, str, str]]:
        """Return a row for each metric: name, value of the samples, value of real images."""
        return [(name, _number(found["value"]), _number(found["real"])) for name, found in self["metrics"].items()]

    def gate_rows(self) -> list[tuple[str, str, str]]:
        """Return a row for each gate: result, name, and the figure that decided with its limit."""
        return [_gate_row(name, gate) for name, gate in self["gates"].items()]

    def __repr__(self) -> str:
        metrics = [("metric", "samples", "real images"), *self.metric_rows()]
        lines = [self.origin(), "", *_aligned(metrics), "", *_aligned(self.gate_rows()), ""]
        lines += [f"note: {notice}" for notice in self["notices"]]
        return "\n".join([*lines, self.headline()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>note: {html.escape(notice)}</p>" for notice in self["notices"])
        return (
            f"<p><b>{html.escape(self.headline())}</b></p>"
            + html_table(
                ("gate", "result", "measured"), [(name, result, why) for result, name, why in self.gate_rows()]
            )
            + html_table(("metric", "samples", "real images"), self.metric_rows())
            + f"{notes}<p>{html.escape(self.origin())}</p>"
        )


def caution_about(n: int) -> str:
    """Return a sentence where a validation FD ratio was measured on too few images; empty elsewhere."""
    return "" if n >= _FEWEST else f"{n:,} images are too few: the FD ratio shows a trend, not how good samples are"


class Comparison(list[dict[str, Any]]):
    """Groups of verdicts, best first; runs that differ in their seed alone share a group. Shows itself as a table.

    >>> gs.compare(run, quick=True)
    targets               seeds  FD ratio ...
    0001-mlp-small-mnist  1      ... INVALID: ...
    """

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header, and a row for each group."""
        evaluators = list(dict.fromkeys(name for group in self for name in group["fd_ratios"]))
        header = ["targets", "seeds", "FD ratio", *evaluators, "data", "samples", "verdict"]
        return header, [self._row(group, evaluators) for group in self]

    def _row(self, group: dict[str, Any], evaluators: Sequence[str]) -> list[str]:
        """Return the cells of one group."""
        first = group["verdicts"][0]
        spread = "" if group["spread"] is None else f" +- {group['spread']:.2f}"
        return [
            group["name"],
            str(len(group["targets"])),
            "none" if group["fd_ratio"] is None else f"{group['fd_ratio']:.2f}{spread}",
            *(_number(group["fd_ratios"].get(name)) for name in evaluators),
            first["data"],
            f"{first['n']:,}",
            "valid" if group["valid"] else "INVALID: " + (", ".join(group["failed"]) or "no gate ran"),
        ]

    @property
    def legend(self) -> str:
        """A sentence on how to read the FD ratios."""
        spread = any(group["spread"] is not None for group in self)
        return f"FD ratio: {_SCALE}" + ("; +- is the standard deviation over seeds" if spread else "")

    @property
    def notice(self) -> str:
        """A sentence where the groups cannot be compared; empty where they can."""
        measured = [
            (row["data"], row["n"], *_real_images(row), *sorted(row.get("evaluators", {}).items()))
            for row in (group["verdicts"][0] for group in self)
        ]
        if len(set(measured)) < 2:
            return ""
        is_curable = len({row[:4] for row in measured}) == 1  # by other evaluators alone
        return (
            "FD ratios to different real images, of different numbers of samples, or by different evaluators cannot be "
            "compared" + ("; measure them again (--again) by the evaluators that are here now" if is_curable else "")
        )

    def __repr__(self) -> str:
        header, rows = self.table()
        lines = [*_aligned([header, *rows]), self.legend]
        return "\n".join([*lines, f"note: {self.notice}"] if self.notice else lines)

    def _repr_html_(self) -> str:
        note = f"<p>note: {html.escape(self.notice)}</p>" if self.notice else ""
        return f"{html_table(*self.table())}<p>{html.escape(self.legend)}</p>{note}"


def _real_images(verdict: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies the images that the FD ratio divides by."""
    return tuple(verdict.get("hashes", {}).get(part) for part in ("validation", "test"))


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table of escaped cells."""
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _gate_row(name: str, gate: dict[str, Any]) -> tuple[str, str, str]:
    """Return result, name and what decided, such as ("pass", "coverage", "coverage 0.95 (at least 0.8)")."""
    if gate["ok"] is None:
        return "not run", name, gate["meaning"]
    value = math.inf if gate["value"] is None else gate["value"]  # files hold no infinite number
    is_lower = (value >= gate["limit"]) == gate["ok"]
    bound = f"{'at least' if is_lower else 'at most'} {_number(gate['limit'])}"
    figure = f"{gate['figure']} {_number(value)} ({bound})"
    return ("pass", name, figure) if gate["ok"] else ("FAIL", name, f"{figure}: {gate['meaning']}")


def _number(value: float | None) -> str:
    """Return four significant digits, 0 for rounding errors, empty for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
