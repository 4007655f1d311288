"""Pictures of a run's numbers, drawn without any global plotting state."""

from pathlib import Path

from gansmith.runs import Run

# Told apart by people with any colour vision, and in grey print by line style.
_LINES = {"d_loss": ("#0072B2", "-", "discriminator"), "g_loss": ("#D55E00", "--", "generator")}


def plot_losses(run: Run) -> Path:
    """Both players' losses against images seen, from the log, as loss.png in the run's directory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in run.log() if "d_loss" in row]
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, (colour, style, label) in _LINES.items():
        points = [(row["images_seen"] / 1000, row[name]) for row in rows if row[name] is not None]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), color=colour, linestyle=style, label=label)
    axes.set_xlabel("thousand images seen")
    axes.set_ylabel("loss")
    axes.set_title(f"{run.config.recipe} on {run.config.dataset}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path = run.directory / "loss.png"
    figure.savefig(path, metadata={"Software": None})
    return path
