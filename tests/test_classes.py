"""Class metrics on constructed probabilities and on random draws."""

import numpy as np
import pytest

from gansmith.metrics.classes import (
    class_balance,
    class_diversity,
    class_kl_null,
    label_accuracy,
    recognised,
)

RNG = np.random.default_rng(2)


def _answers(classes, *, sure=0.99, num_classes=3):
    """Probabilities that give each image its class."""
    rows = np.full((len(classes), num_classes), (1 - sure) / (num_classes - 1))
    rows[np.arange(len(classes)), classes] = sure
    return rows


def test_recognised_counts_confident_answers_of_both_sets():
    real, fake = _answers([0, 1, 2, 0]), np.concatenate([_answers([0]), _answers([1, 2], sure=0.5), _answers([0])])
    assert recognised(real, fake) == {"recognised": 0.5, "recognised_excess": -0.5}
    assert recognised(fake, real)["recognised_excess"] == 0.5
    assert recognised(real, _answers([0], sure=0.9))["recognised"] == 1


def test_a_missing_class_empties_a_mode_and_has_a_known_divergence():
    real = _answers([0, 1, 2] * 10)
    assert class_balance(real, real) == {"rarest_class": 1, "modes": 3, "class_kl": 0}
    found = class_balance(real, _answers([0, 1] * 10))
    assert found == pytest.approx({"rarest_class": 0, "modes": 2, "class_kl": np.log(1.5)})


def test_a_class_that_real_images_never_have_is_infinitely_far():
    assert class_balance(_answers([0, 1]), _answers([0, 2]))["class_kl"] == np.inf


def test_the_null_of_the_class_divergence_is_what_draws_score():
    draws = []
    for _ in range(200):
        real, fake = (_answers(RNG.integers(0, 3, size)) for size in (900, 600))
        draws.append(class_balance(real, fake)["class_kl"])
    assert np.mean(draws) == pytest.approx(class_kl_null(3, 900, 600), rel=0.3)  # 200 draws of a skewed law: 7 % error


def test_label_accuracy_counts():
    assert label_accuracy(_answers([0, 1, 2, 2]), np.array([0, 1, 2, 0])) == {"label_accuracy": 0.75}


def test_diversity_is_the_root_mean_square_distance_of_pairs():
    real, fake = RNG.normal(size=(8, 3)), RNG.normal(size=(6, 3))
    ids = np.zeros(8, int)

    def spread(x):
        return np.sqrt(np.mean([((a - b) ** 2).sum() for i, a in enumerate(x) for j, b in enumerate(x) if i != j]))

    found = class_diversity(real, fake, ids, ids[:6])
    assert found["diversity"] == found["diversity_worst"] == pytest.approx(spread(fake) / spread(real), rel=1e-12)


def test_a_class_of_equal_real_images_has_no_diversity_to_compare():
    real, fake = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 3))
    ids = np.repeat([0, 1], 4)
    real[ids == 1] = 1.0
    assert class_diversity(real, fake, ids, ids) == class_diversity(real[:4], fake[:4], ids[:4], ids[:4])
    assert class_diversity(real[4:], fake[4:], ids[4:], ids[4:]) == {}


def test_diversity_finds_the_class_that_collapsed():
    real = RNG.normal(size=(300, 4))
    ids = np.arange(300) % 3
    fake = real.copy()
    fake[ids == 1] *= 0.5
    fake[ids == 2] = fake[2]
    assert class_diversity(real, fake, ids, ids) == pytest.approx({"diversity": 0.5, "diversity_worst": 0}, abs=1e-12)
    assert class_diversity(real, fake[ids == 0], ids, ids[ids == 0])["diversity_worst"] == 0


def test_a_class_that_only_confusion_finds_is_missing():
    """Labels 0, 1, 2 in shares 0, 1/2, 1/2; two in five of 1 are taken for 0, and half of the real 0 for 1."""
    confusion = np.array([[0.5, 0.4, 0.0], [0.5, 0.6, 0.0], [0.0, 0.0, 1.0]])
    fake = one_hot([0] * 40 + [1] * 60 + [2] * 100)
    real = one_hot([0] * 60 + [1] * 80 + [2] * 70)  # as of labels in the shares 40, 100, 70
    plain, corrected = class_balance(real, fake), class_balance(real, fake, confusion)
    assert plain["rarest_class"] == pytest.approx(40 / 200 / (60 / 210)) and plain["modes"] == 3
    assert corrected["rarest_class"] == pytest.approx(0, abs=1e-9) and corrected["modes"] == 2
    assert corrected["class_kl"] == plain["class_kl"]
    assert class_balance(real, real, confusion)["rarest_class"] == pytest.approx(1)
    assert class_balance(real, fake, np.eye(3)) == pytest.approx(plain)


def one_hot(classes):
    return np.eye(3)[classes]
