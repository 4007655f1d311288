"""The objectives of "Are GANs Created Equal?" on one generator with one budget, ordered by their FD ratio.

G is InfoGAN's, as there, D a university course's, with max pooling, and BEGAN's an autoencoder; the figure is this
package's FD ratio, so orders compare with the paper's and values do not.

Source: Lucic et al., arXiv:1711.10337, table 1.
"""

from typing import Any

from gansmith.evaluation import over_seeds

RECIPE = "dcgan-cs231n"
IMAGES = 200_000  # the paper gives each objective 1,000,000
SEEDS = 3

# What each objective adds to the recipe: its own source's rates and steps where these are part of it.
OBJECTIVES_COMPARED: dict[str, dict[str, Any]] = {
    "minimax":        dict(objective="minimax"),
    "non-saturating": dict(objective="non-saturating"),
    "least-squares":  dict(objective="least-squares"),
    "wasserstein":    dict(objective="wasserstein", clip_weights=0.01, d_steps=5, g_optimizer="rmsprop",
                           d_optimizer="rmsprop", g_lr=5e-5, d_lr=5e-5, beta2=0.99),
    "wasserstein-gp": dict(objective="wasserstein", gradient_penalty=10.0, d_steps=5, beta1=0.0, beta2=0.9,
                           g_lr=1e-4, d_lr=1e-4),
    "dragan":         dict(objective="non-saturating", dragan=10.0),
    "boundary-equilibrium": dict(objective="boundary-equilibrium", network="autoencoder", d_width=64,
                           g_lr=1e-4, d_lr=1e-4),
    "hinge":          dict(objective="hinge"),
}  # fmt: skip


def order(verdicts: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each objective by its mean FD ratio, best first; one whose training failed in any seed last.

    `spread` is the standard deviation over seeds, None for a single one; `trainings_failed` have no ratio.

    Args:
        verdicts: of `gansmith.evaluation.evaluate`, one for each seed, by objective; without gates where the training
            failed.
    """
    rows = []
    for name, found in verdicts.items():
        mean, spread = over_seeds(verdict["fd_ratio"] for verdict in found)
        failed = sorted({gate for one in found for gate, state in one["gates"].items() if state["ok"] is False})
        stopped = sum(not one["gates"] for one in found)
        row = {"objective": name, "fd_ratio": mean, "spread": spread, "seeds": len(found), "trainings_failed": stopped}
        rows.append({**row, "valid": not failed and not stopped, "failed": failed})
    return sorted(rows, key=lambda row: (row["trainings_failed"] > 0, row["fd_ratio"] is None, row["fd_ratio"] or 0.0))
