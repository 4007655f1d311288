"""Named starting points: each row lists what it adds to the defaults of `Config`, which leave every technique out.

Where a source counts in epochs or iterations, the row converts to images: 60,000 an epoch, a batch an iteration.
Unless a row says otherwise, its source fixes all of it but Adam's rate and memory, taken here as 2e-4, 0.5 and 0.999.
"""

from typing import Any

# What the rows on the compact pair share.
_COMPACT: dict[str, Any] = dict(
    network="compact", g_width=32, d_width=64, latent_dim=64, conditioning="auto", g_lr=3e-3,
    d_lr=3e-3, beta1=0.0, beta2=0.95, lr_decay_from=0.5, ema=0.1,
)  # fmt: skip

# The house recipe; docs/log.md says how it was found.
_DEFAULT: dict[str, Any] = dict(
    _COMPACT, batch_size=64, g_width=64, ema=0.05, minibatch_stddev=64, r1_gamma=0.02, r2_gamma=0.02, penalty_start_factor=100.0,
    penalty_every=8, d_loss_target=1.1, d_steps=2, g_lr=4.5e-3, calibrate_output=True, augment="auto",
)  # fmt: skip

RECIPES: dict[str, dict[str, Any]] = {
    # Labels where the data has them, each divided into clusters; clusters alone elsewhere.
    "default": dict(_DEFAULT, clusters_per_class=200),
    # The same, and no label is ever read: clusters take their place.
    "default-unlabelled": dict(_DEFAULT, conditioning="clusters"),
    # Stacked MNIST, told neither labels nor clusters; pairs of real and generated images keep rare kinds alive, and how
    # much a batch differs tells the discriminator of missing ones. The network knows that colours are pictures of one
    # kind, which those of published tables do not.
    "stacked": dict(
        _COMPACT, network="planes", data="stacked-mnist", conditioning="none", use_all_training_images=True,
        objective="relativistic", g_width=64, latent_dim=96, ema=0.05, minibatch_stddev=64,
        r1_gamma=0.05, r2_gamma=0.05, penalty_start_factor=20.0, penalty_every=8,
    ),
    # Mixtures of Gaussians drawn as pictures, told neither labels nor clusters.
    "gaussians": dict(
        _COMPACT, data="gaussian-ring", conditioning="none", objective="relativistic", d_width=32,
        g_lr=2e-3, d_lr=2e-3, r1_gamma=0.2, r2_gamma=0.2, penalty_start_factor=10.0, penalty_every=4,
        images=200_000,
    ),
    # The two-layer pair of introductory tutorials: 200 epochs, a log line every 400 batches, a grid every 3 epochs.
    # Adam's settings are the source's.
    "mlp-small": dict(
        network="mlp", g_width=256, d_width=256, latent_dim=100, beta1=0.9, images=12_000_000,
        log_every=25_600, sample_every=180_000,
    ),
    # A deeper normalised pair of Keras examples: 50,000 iterations. Chosen here: D's soft target for real images, 0.9.
    "mlp-keras": dict(
        network="mlp-keras", g_width=256, d_width=512, latent_dim=100, weight_init="glorot", images=3_200_000,
        label_smoothing=0.1,
    ),
    # Keras' upsampling pair: 10,000 iterations.
    "dcgan-keras": dict(
        network="dcgan-keras", g_width=128, d_width=32, latent_dim=100, weight_init="glorot", images=640_000,
        d_dropout=0.25,
    ),
    # Keras' conditional pair, labels multiplied into latents and images: 50,000 iterations.
    "cgan-keras": dict(
        network="cgan-keras", g_width=256, d_width=512, latent_dim=100, weight_init="glorot", images=3_200_000,
        conditioning="labels", g_conditioning="multiplied", d_conditioning="multiplied", d_dropout=0.4,
    ),
    # The pairs of a university course: 10 epochs. Chosen here, being the course's own: latents, Adam's settings, batch,
    # other latents in the generator's turn, and the third pair's first weights. The course samples in training mode;
    # here the batch statistics are recorded ones.
    "vanilla-cs231n": dict(
        network="mlp-deep", g_width=1024, d_width=256, latent_dim=96, latent_distribution="uniform", images=600_000, batch_size=128,
        g_lr=1e-3, d_lr=1e-3, fresh_fakes=True,
    ),
    "lsgan-cs231n": dict(
        network="mlp-deep", g_width=1024, d_width=256, latent_dim=96, latent_distribution="uniform", images=600_000, batch_size=128,
        g_lr=1e-3, d_lr=1e-3, fresh_fakes=True, objective="least-squares",
    ),
    "dcgan-cs231n": dict(
        network="dcgan-pooled", g_width=64, d_width=32, latent_dim=96, latent_distribution="uniform", images=600_000, batch_size=128,
        g_lr=1e-3, d_lr=1e-3, fresh_fakes=True, weight_init="glorot",
    ),
    # A convolutional pair whose discriminator learns by SGD from soft, swapped targets: 200 epochs.
    # Chosen here: beta1, and G's target, the range D gives to real images.
    "dcgan-sgd": dict(
        network="dcgan", g_width=256, d_width=256, latent_dim=100, d_dropout=0.3, d_optimizer="sgd", images=12_000_000,
        batch_size=32, label_smoothing=0.3, fake_label_smoothing=0.3, random_labels=True,
        label_flipping=1.0, g_targets="smoothed",
    ),
    # The systems of papers, each as its source trains it; widths are chosen for two cores and are the first thing to
    # raise on more. WGAN-GP, arXiv:1704.00028 and its code for MNIST, widths too: 200,000 steps of G, batch 50.
    "wgan-gp": dict(
        network="wgan-gp", g_width=64, d_width=64, latent_dim=128, images=50_000_000, batch_size=50,
        objective="wasserstein", gradient_penalty=10.0, d_steps=5,
        g_lr=1e-4, d_lr=1e-4, beta2=0.9,
    ),
    # SNGAN, arXiv:1802.05957 (CIFAR-10): 100,000 steps of G. Its widths are 256 and 128.
    "sngan": dict(
        network="sngan", g_width=32, d_width=32, latent_dim=128, images=32_000_000,
        objective="hinge", spectral_norm=True, d_steps=5, beta1=0.0, beta2=0.9,
    ),
    # ACGAN, arXiv:1610.09585 (CIFAR-10): 50,000 steps, batch 100. Its widths are 192 and 512.
    "acgan": dict(
        network="acgan", g_width=48, d_width=128, latent_dim=100, images=5_000_000, batch_size=100, weight_init="normal",
        conditioning="labels", objective="auxiliary-classifier", d_conditioning="classifier", d_dropout=0.5,
    ),
    # Progressive growing, arXiv:1710.10196: five phases of 600,000 images. Left out: its drift penalty. Chosen here:
    # the batch, and learning rates for weights of their own size (source: 1e-3 for weights of size one).
    "progressive": dict(
        network="progressive", g_width=32, d_width=32, latent_dim=128, images=3_000_000, batch_size=32,
        objective="wasserstein", gradient_penalty=10.0, minibatch_stddev=64,
        g_lr=2e-4, d_lr=2e-4, beta1=0.0, beta2=0.99, ema=0.05,
    ),
    # StyleGAN2, arXiv:1912.04958, with the settings of arXiv:2006.06676 for CIFAR-10. Chosen here: R1's weight,
    # the batch, and learning rates for weights of their own size (source: 2.5e-3 for weights of size one).
    "stylegan-lite": dict(
        network="stylegan-lite", g_width=32, d_width=32, latent_dim=64, images=3_000_000, batch_size=32,
        r1_gamma=0.1, penalty_every=16, style_mixing=0.9, minibatch_stddev=64,
        g_lr=3e-4, d_lr=3e-4, beta1=0.0, beta2=0.99, ema=0.05,
    ),
    # R3GAN, arXiv:2501.05441, table 4 and its code: weights, rates, Adam's memory and the average's half-life all
    # move by half a cosine. Chosen here: batch 32 (source: 512), widths (768), and how much of the run they move for.
    "r3gan": dict(
        network="r3gan", g_width=32, d_width=32, latent_dim=64, images=2_000_000, batch_size=32, conditioning="auto",
        objective="relativistic", r1_gamma=0.1, r2_gamma=0.1, penalty_start_factor=10.0,
        g_lr=5e-5, d_lr=5e-5, lr_start_factor=4.0, beta1=0.0, beta2=0.99, beta2_start=0.9,
        ema=0.02, ema_growth="cosine",
    ),
}  # fmt: skip
BUILT_IN_RECIPES = frozenset(RECIPES)  # a program may add its own rows
