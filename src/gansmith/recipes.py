"""Named starting points: each row lists only what differs from the defaults of `Config`.

Where a source counts in epochs or iterations, the row converts to images of full MNIST's 60,000.
"""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # The house recipe: labels where the data has them, clusters elsewhere. docs/log.md says how it was found.
    "default": dict(network="compact", r1=0.05, r2=0.05, penalty_boost=40.0, penalty_every=8),
    # The same, and no label is ever read: clusters take their place.
    "default-unlabelled": dict(
        network="compact", r1=0.05, r2=0.05, penalty_boost=40.0, penalty_every=8, conditioning="clusters",
    ),
    # Stacked MNIST, told neither labels nor clusters; pairs of real and generated images keep rare kinds alive.
    "stacked": dict(
        dataset="stacked-mnist", conditioning="none", use_all_training_images=True, objective="relativistic",
        network="compact", g_learning_rate=2e-3, d_learning_rate=2e-3, r1=0.1, r2=0.1, penalty_every=4,
    ),
    # Mixtures of Gaussians drawn as pictures, told neither labels nor clusters.
    "gaussians": dict(
        dataset="gaussian-ring", conditioning="none", objective="relativistic", network="compact", g_width=16,
        d_width=16, g_learning_rate=2e-3, d_learning_rate=2e-3, r1=0.1, r2=0.1, images=200_000,
    ),
    # The two-layer pair of introductory tutorials: Adam 2e-4, batch 64, 200 epochs.
    "mlp-small": dict(
        network="mlp", g_width=256, d_width=256, z_dim=100, conditioning="none", update="alternating",
        g_learning_rate=2e-4, d_learning_rate=2e-4, beta1=0.9, beta2=0.999, decay_from=1.0, ema=0.0,
        images=12_000_000,
    ),
    # A convolutional pair whose discriminator learns by SGD from soft, swapped targets: batch 32, 200 epochs.
    # Chosen here, left open by the source: beta1 0.5, and G's target, the range D gives to real images.
    "dcgan-sgd": dict(
        network="dcgan", g_width=256, d_width=256, z_dim=100, conditioning="none", update="alternating", dropout=0.3,
        g_learning_rate=2e-4, d_learning_rate=2e-4, beta1=0.5, beta2=0.999, decay_from=1.0, ema=0.0,
        d_optimizer="sgd", real_target_low=0.7, fake_target_high=0.3, flip_probability=1.0,
        images=12_000_000, batch=32,
    ),
}  # fmt: skip
