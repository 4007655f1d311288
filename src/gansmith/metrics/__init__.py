"""Metrics: how far generated images are from real ones, compared with how far real ones are from each other.

`METRICS` are pure functions of arrays; `protocol.evaluate_samples` applies them to samples and to real images;
`gates.GATES` are the limits within which an FD ratio is valid; `validation` is the score during training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gansmith.metrics.classes import class_balance, class_diversity, label_accuracy, recognised
from gansmith.metrics.distances import frechet_distance, frechet_infinity, kid
from gansmith.metrics.memorisation import memorisation
from gansmith.metrics.neighbours import density_coverage, precision_recall
from gansmith.metrics.pixels import pixel_statistics


@dataclass(frozen=True)
class Metric:
    """A function of real and generated images, its arguments, and whether it belongs to the quick tier.

    Attributes:
        takes: "features" (N, d) or "probabilities" (N, K) of real and of fake; "shares": those and
            the classifier's confusion, None where it hardly errs; "classes": features of both, then
            the most probable class of each; "labels": probabilities of fake and the labels it was conditioned on;
            "pixels": uint8 of both; "train": flat pixels of the training, the held-out and the generated images.
    """

    function: Callable[..., dict[str, float]]
    takes: Literal["features", "probabilities", "shares", "classes", "labels", "pixels", "train"]
    is_quick: bool = True


METRICS: dict[str, Metric] = {
    "fd":               Metric(frechet_distance, "features"),
    "fd_infinity":      Metric(frechet_infinity, "features", is_quick=False),
    "kid":              Metric(kid, "features", is_quick=False),
    "precision_recall": Metric(precision_recall, "features", is_quick=False),
    "density_coverage": Metric(density_coverage, "features"),
    "recognised":       Metric(recognised, "probabilities"),
    "class_balance":    Metric(class_balance, "shares"),
    "label_accuracy":   Metric(label_accuracy, "labels"),
    "class_diversity":  Metric(class_diversity, "classes"),
    "pixels":           Metric(pixel_statistics, "pixels"),
    "memorisation":     Metric(memorisation, "train", is_quick=False),
}  # fmt: skip
