"""Named starting points: each row lists what it changes in the defaults of `Config`, which use no technique.

Where a source counts epochs or iterations, the row converts them to images: 60,000 per epoch, a batch per iteration.
Unless its comment says otherwise, a row's values are its source's, except Adam's learning rate, beta1 and beta2: these
are 2e-4, 0.5 and 0.999, as in `Config`. A program may add rows.

>>> gs.RECIPES["mlp-small"]["network"]
'mlp'
>>> gs.RECIPES["mine"] = dict(gs.RECIPES["mlp-small"], images=50_000, label_smoothing=0.1)
>>> gs.resolve("mine").images
50000
"""

from typing import Any

# Shared by the recipes with the compact networks.
_COMPACT: dict[str, Any] = dict(
    network="compact", g_width=32, d_width=64, latent_dim=64, conditioning="auto", g_lr=3e-3,
    d_lr=3e-3, beta1=0.0, beta2=0.95, lr_decay_from=0.5, ema=0.1,
)  # fmt: skip

# Gansmith's own recipe; docs/experiments.md says how it was found.
_DEFAULT: dict[str, Any] = dict(
    _COMPACT, batch_size=64, g_width=64, ema=0.05, minibatch_stddev=4, r1_gamma=0.02, r2_gamma=0.02,
    penalty_start_factor=100.0, penalty_every=8, d_loss_target=1.1, d_steps=2, g_lr=4.5e-3, lr_decay_from=0.25,
    calibrate_output=True, augment="auto", g_optimizer="soap", d_optimizer="soap",
)  # fmt: skip

# Where SOAP does not pay: it was measured on many grey images, on processors.
ADAM: dict[str, dict[str, Any]] = dict.fromkeys(
    ("default", "default-unlabelled"), dict(g_optimizer="adam", d_optimizer="adam")
)

# What a recipe sets otherwise for many images in color, unless something else is asked for.
IN_COLOR: dict[str, dict[str, Any]] = dict.fromkeys(
    ("default", "default-unlabelled"), dict(d_steps=1, d_loss_target=0.8, g_class_loss=0.1, lr_decay_from=0.5)
)

# And without labels, where images look the same in a mirror: twice as many for D to learn.
MIRRORED: dict[str, dict[str, Any]] = dict.fromkeys(("default", "default-unlabelled"), dict(mirror=True))

# And without labels, with the compact networks: D learns what pictures show by naming how they are turned.
WITHOUT_LABELS_IN_COLOR: dict[str, dict[str, Any]] = dict.fromkeys(
    ("default", "default-unlabelled"), dict(d_rotation_loss=1.0, g_rotation_loss=0.2)
)

# And with labels, in long runs: networks of twice the width, and where images look the same in a mirror, mirror images
# too, with classes alone, since sub-clusters know left from right.
LONG_IN_COLOR: dict[str, dict[str, Any]] = {"default": dict(g_width=128, g_lr=3e-3, d_width=128, d_lr=2e-3)}
LONG_MIRRORED: dict[str, dict[str, Any]] = {"default": dict(mirror=True, clusters_per_class=1)}

RECIPES: dict[str, dict[str, Any]] = {
    # Conditioned on sub-clusters of each class where the data has labels, which D also names, on k-means clusters
    # elsewhere.
    "default": dict(_DEFAULT, clusters_per_class=200, d_class_loss=0.5, g_class_loss=0.03),
    # The same without reading any labels: conditioned on k-means clusters as pseudo-labels.
    "default-unlabelled": dict(_DEFAULT, conditioning="clusters"),
    # Stacked MNIST, conditioned on neither labels nor clusters. The relativistic loss and the minibatch standard
    # deviation keep rare modes. The network treats the three channels as images of one kind, with shared weights, which
    # the networks of published tables do not.
    "stacked": dict(
        _COMPACT, network="planes", data="stacked-mnist", conditioning="none", use_all_training_images=True,
        objective="relativistic", g_width=64, latent_dim=96, ema=0.05, minibatch_stddev=4,
        r1_gamma=0.05, r2_gamma=0.05, penalty_start_factor=20.0, penalty_every=8,
    ),
    # Mixtures of Gaussians rendered as images, conditioned on neither labels nor clusters.
    "gaussians": dict(
        _COMPACT, data="gaussian-ring", conditioning="none", objective="relativistic", d_width=32,
        g_lr=2e-3, d_lr=2e-3, r1_gamma=0.2, r2_gamma=0.2, penalty_start_factor=10.0, penalty_every=4,
        images=200_000,
    ),
    # The two-layer networks of introductory tutorials: 200 epochs, a log line every 400 batches, a grid every 3 epochs.
    # Source's too: Adam's learning rate and betas.
    "mlp-small": dict(
        network="mlp", g_width=256, d_width=256, latent_dim=100, beta1=0.9, images=12_000_000,
        log_every=25_600, sample_every=180_000,
    ),
    # Deeper fully connected networks of the Keras examples: 50,000 iterations. Chosen here: label_smoothing.
    "mlp-keras": dict(
        network="mlp-keras", g_width=256, d_width=512, latent_dim=100, weight_init="glorot", images=3_200_000,
        label_smoothing=0.1,
    ),
    # The upsampling networks of the Keras examples: 10,000 iterations.
    "dcgan-keras": dict(
        network="dcgan-keras", g_width=128, d_width=32, latent_dim=100, weight_init="glorot", images=640_000,
        d_dropout=0.25,
    ),
    # The conditional GAN of the Keras examples, labels multiplied with latents and images: 50,000 iterations.
    "cgan-keras": dict(
        network="cgan-keras", g_width=256, d_width=512, latent_dim=100, weight_init="glorot", images=3_200_000,
        conditioning="labels", g_conditioning="multiplied", d_conditioning="multiplied", d_dropout=0.4,
    ),
    # The three GANs of a university course: 10 epochs. Source's too: Adam's learning rate and betas. Different: the
    # course samples in training mode, here batch normalisation has statistics of its own.
    "vanilla-cs231n": dict(
        network="mlp-deep", g_width=1024, d_width=256, latent_dim=96, latent_distribution="uniform", images=600_000,
        batch_size=128, g_lr=1e-3, d_lr=1e-3, fresh_fakes=True,
    ),
    "lsgan-cs231n": dict(
        network="mlp-deep", g_width=1024, d_width=256, latent_dim=96, latent_distribution="uniform", images=600_000,
        batch_size=128, g_lr=1e-3, d_lr=1e-3, fresh_fakes=True, objective="least-squares",
    ),
    "dcgan-cs231n": dict(
        network="dcgan-pooled", g_width=64, d_width=32, latent_dim=96, latent_distribution="uniform", images=600_000,
        batch_size=128, g_lr=1e-3, d_lr=1e-3, fresh_fakes=True, weight_init="glorot",
    ),
    # A DCGAN whose discriminator is trained by SGD with smoothed and flipped labels: 200 epochs. Chosen here: beta1,
    # g_targets.
    "dcgan-sgd": dict(
        network="dcgan", g_width=256, d_width=256, latent_dim=100, d_dropout=0.3, d_optimizer="sgd", images=12_000_000,
        batch_size=32, label_smoothing=0.3, fake_label_smoothing=0.3, random_labels=True, label_flipping=1.0,
        g_targets="smoothed",
    ),
    # The remaining rows are methods of papers. Their widths are chosen for two CPU cores; raise them first on more. G's
    # step takes the images of D's last step; the papers draw new ones (fresh_fakes), which costs time.
    # WGAN-GP, arXiv:1704.00028 and its code for MNIST: 200,000 steps of G, batch 50. Source's too: widths, Adam.
    "wgan-gp": dict(
        network="wgan-gp", g_width=64, d_width=64, latent_dim=128, images=50_000_000, batch_size=50,
        objective="wasserstein", gradient_penalty=10.0, d_steps=5, g_lr=1e-4, d_lr=1e-4, beta2=0.9,
    ),
    # SNGAN, arXiv:1802.05957 (CIFAR-10): 100,000 steps of G. Chosen here: widths (source: 256 and 128), G's batch
    # (128) and constant learning rates (the source's code lets them fall in a line to 0).
    "sngan": dict(
        network="sngan", g_width=32, d_width=32, latent_dim=128, images=32_000_000, objective="hinge",
        spectral_norm=True, d_steps=5, beta1=0.0, beta2=0.9,
    ),
    # ACGAN, arXiv:1610.09585 (CIFAR-10): 50,000 steps, batch 100. Chosen here: widths (source: 192 and 512).
    "acgan": dict(
        network="acgan", g_width=48, d_width=128, latent_dim=100, images=5_000_000, batch_size=100,
        weight_init="normal", conditioning="labels", objective="auxiliary-classifier", d_conditioning="classifier",
        d_dropout=0.5,
    ),
    # Progressive growing, arXiv:1710.10196: five phases of 600,000 images, without its drift penalty. Chosen here:
    # widths, latent_dim (source: 512), batch_size, ema (a decay of 0.999), and learning rates (1e-3 with the equalised
    # learning rate, which is not used here).
    "progressive": dict(
        network="progressive", g_width=32, d_width=32, latent_dim=128, images=3_000_000, batch_size=32,
        objective="wasserstein", gradient_penalty=10.0, minibatch_stddev=4, g_lr=2e-4, d_lr=2e-4, beta1=0.0,
        beta2=0.99, ema=0.05,
    ),
    # StyleGAN2, arXiv:1912.04958, with its style mixing, residual D and groups of 4; of arXiv:2006.06676, Adam's betas
    # and no path length penalty. Chosen here: widths, latent_dim (source: 512), r1_gamma, batch_size, and learning
    # rates (2e-3, in the second 2.5e-3, with the equalised learning rate, which is not used here).
    "stylegan-lite": dict(
        network="stylegan-lite", g_width=32, d_width=32, latent_dim=64, images=3_000_000, batch_size=32,
        r1_gamma=0.1, penalty_every=16, style_mixing=0.9, minibatch_stddev=4, g_lr=3e-4, d_lr=3e-4, beta1=0.0,
        beta2=0.99, ema=0.05,
    ),
    # R3GAN, arXiv:2501.05441, table 4 and its code: gammas, learning rates, beta2 and the EMA's half-life all move by
    # half a cosine. Chosen here: batch_size (source: 512), widths (768), and the share of the run over which they move.
    "r3gan": dict(
        network="r3gan", g_width=32, d_width=32, latent_dim=64, images=2_000_000, batch_size=32, conditioning="auto",
        objective="relativistic", r1_gamma=0.1, r2_gamma=0.1, penalty_start_factor=10.0, g_lr=5e-5, d_lr=5e-5,
        lr_start_factor=4.0, beta1=0.0, beta2=0.99, beta2_start=0.9, ema=0.02, ema_growth="cosine",
    ),
}  # fmt: skip
BUILT_IN_RECIPES = dict(RECIPES)  # a program may add its own rows
