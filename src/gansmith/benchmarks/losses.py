"""The objectives of "Are GANs Created Equal?" on one generator with one budget, ordered by what they reach.

The networks are InfoGAN's, as there, but for the discriminator that must redraw images; the figure is this package's
ratio to real data, so orders compare with the paper's and values do not.

Source: Lucic et al., arXiv:1711.10337, table 1.
"""

import statistics
from typing import Any

RECIPE = "dcgan-cs231n"
IMAGES = 200_000  # the paper gives each objective 1,000,000
SEEDS = 3

# What each objective adds to the recipe: its own source's rates and steps where these are part of it.
OBJECTIVES_COMPARED: dict[str, dict[str, Any]] = {
    "minimax":        dict(objective="minimax"),
    "non-saturating": dict(objective="non-saturating"),
    "least-squares":  dict(objective="least-squares"),
    "wasserstein":    dict(objective="wasserstein", clip_weights=0.01, d_steps=5, g_optimizer="rmsprop",
                           d_optimizer="rmsprop", g_lr=5e-5, d_lr=5e-5),
    "wasserstein-gp": dict(objective="wasserstein", gradient_penalty=10.0, d_steps=5, beta1=0.0, beta2=0.9,
                           g_lr=1e-4, d_lr=1e-4),
    "dragan":         dict(objective="non-saturating", dragan=10.0),
    "boundary-equilibrium": dict(objective="boundary-equilibrium", network="autoencoder", d_width=64,
                           g_lr=1e-4, d_lr=1e-4),
    "hinge":          dict(objective="hinge"),
}  # fmt: skip


def order(verdicts: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Objectives by their mean ratio, best first, with the range over seeds; without a ratio last.

    Args:
        verdicts: of `gansmith.evaluation.evaluate`, one a seed, by objective.
    """
    rows = []
    for name, found in verdicts.items():
        ratios = [verdict["ratio"] for verdict in found if verdict["ratio"] is not None]
        failed = sorted({gate for one in found for gate, state in one["gates"].items() if state["ok"] is False})
        rows.append(
            {
                "objective": name,
                "ratio": statistics.fmean(ratios) if ratios else None,
                "lowest": min(ratios, default=None),
                "highest": max(ratios, default=None),
                "seeds": len(found),
                "valid": not failed,
                "failed": failed,
            }
        )
    return sorted(rows, key=lambda row: (row["ratio"] is None, row["ratio"] or 0.0))
