"""How a verdict and a comparison of verdicts are shown: as text in a terminal, as tables in a notebook."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Verdict(dict[str, Any]):
    """The result of evaluating one set of samples, as one JSON object; shows itself as a table.

    Its keys: fd_ratio (samples against test images over validation images against test images; 1.00 is as close as
    other real images), valid (whether every gate passed), n, label_accuracy, fd_ratios, metrics, gates, notices and
    what was compared with what.
    """

    def headline(self) -> str:
        """Return one sentence: the FD ratio, how it was measured, and whether it is valid."""
        failed = [name for name, gate in self["gates"].items() if gate["ok"] is False]
        if self["fd_ratio"] is None:
            kid = self["metrics"].get("kid_z")
            text = "no FD ratio" if kid is None else f"no FD ratio; KID {kid['value']:.1f} standard deviations from real"
        else:
            parts = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self["fd_ratios"].items())
            text = f"FD ratio {self['fd_ratio']:.2f} ({parts}; {self['n']:,} samples; 1.00 = as close as other real images)"
        if failed:
            reasons = "; ".join(f"{name}: {self['gates'][name]['meaning']}" for name in failed)
            return f"INVALID: {text}, but {reasons}"
        unchecked = [name for name, gate in self["gates"].items() if gate["ok"] is None]
        return f"{text}; not checked: {', '.join(unchecked)}" if unchecked else text

    def origin(self) -> str:
        """Return a sentence on what was compared with what."""
        drawn = "" if self["seed"] is None else f" of seed {self['seed']}"
        age = "" if self["images_seen"] is None else f" after {self['images_seen']:,} images"
        target = self.get("target", "")
        return f"{target}{age}: {self['n']:,} samples{drawn} compared with {self['data']}, {self['tier']} tier"

    def metric_rows(self) -> list[tuple[str, str, str]]:
        """Return a row for each metric: name, value of the samples, value of real images."""
        return [(name, _number(found["value"]), _number(found["real"])) for name, found in self["metrics"].items()]

    def gate_rows(self) -> list[tuple[str, str, str]]:
        """Return a row for each gate: result, name, what decided."""
        return [_gate_row(name, gate) for name, gate in self["gates"].items()]

    def __repr__(self) -> str:
        metrics = [("metric", "samples", "real images"), *self.metric_rows()]
        lines = [self.origin(), "", *_aligned(metrics), "", *_aligned(self.gate_rows())]
        lines += [f"note: {notice}" for notice in self["notices"]]
        return "\n".join([*lines, "", self.headline()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>note: {html.escape(notice)}</p>" for notice in self["notices"])
        return (
            f"<p><b>{html.escape(self.headline())}</b></p>"
            + html_table(("gate", "result", "measured"), [(name, result, why) for result, name, why in self.gate_rows()])
            + html_table(("metric", "samples", "real images"), self.metric_rows())
            + f"{notes}<p>{html.escape(self.origin())}</p>"
        )


class Comparison(list[dict[str, Any]]):
    """Groups of verdicts, best first; runs that differ in their seed alone share a group. Shows itself as a table."""

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a header, and a row for each group."""
        evaluators = list(dict.fromkeys(name for group in self for name in group["fd_ratios"]))
        header = ["targets", "seeds", "FD ratio", *evaluators, "data", "samples", "verdict"]
        return header, [self._row(group, evaluators) for group in self]

    def _row(self, group: dict[str, Any], evaluators: Sequence[str]) -> list[str]:
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
    def notice(self) -> str:
        """A sentence where the groups do not compare; empty where they do."""
        measured = {(group["verdicts"][0]["data"], group["verdicts"][0]["n"]) for group in self}
        return "FD ratios of different data, or of different numbers of samples, do not compare" if len(measured) > 1 else ""

    def __repr__(self) -> str:
        header, rows = self.table()
        return "\n".join([*_aligned([header, *rows]), *([f"note: {self.notice}"] if self.notice else [])])

    def _repr_html_(self) -> str:
        return html_table(*self.table()) + (f"<p>note: {self.notice}</p>" if self.notice else "")


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table of escaped cells."""
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _gate_row(name: str, gate: dict[str, Any]) -> tuple[str, str, str]:
    if gate["ok"] is None:
        return "not run", name, gate["meaning"]
    bound = f"{gate['figure']} {_number(gate['value'])}, limit {_number(gate['limit'])}"
    return ("pass", name, bound) if gate["ok"] else ("FAIL", name, f"{bound}: {gate['meaning']}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines with aligned columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
