"""What a classifier can learn from generated images alone; it takes a training run, so no tier includes it."""

import torch

from gansmith.errors import GansmithError
from gansmith.data.images import Images
from gansmith.metrics.learn import accuracy, learn


def gan_train(fake: Images, test: Images, *, images: int = 100_000) -> dict[str, float]:
    """How well a small network trained on generated images reads real ones.

    A tenth of the generated images is kept back to choose the best epoch by, so no real image helps.

    Args:
        fake: generated images with the labels they were asked for, in any order.
        test: real images with labels.
        images: how many to show, about 50 s of one core for 100,000 of 28 pixels.

    Returns:
        {"gan_train": share of test read right, in [0, 1]}. Its ceiling is the same with real images as `fake`, equally
        many. Lenient: images of poor quality still teach the classes, so it finds missing variety rather than blur.

    Source: Shmelkov et al., arXiv:1807.09499, section 3; Ravuri and Vinyals, arXiv:1905.10887.
    """
    if fake.labels is None or test.labels is None or len(fake) < 20:
        raise GansmithError("GAN-train needs labels of both sets and 20 generated images; sample with labels")
    mixed = fake.take(torch.randperm(len(fake), generator=torch.Generator().manual_seed(0)))
    kept_back = len(fake) // 10
    network = learn(mixed.take(torch.arange(kept_back, len(fake))), mixed.take(torch.arange(kept_back)), images=images)
    return {"gan_train": accuracy(network, test)}
