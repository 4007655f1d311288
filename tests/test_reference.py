"""The reference figures of real images, shipped and measured."""

import numpy as np
import pytest

from gansmith.data.images import ImageSpec
from gansmith.metrics.distances import frechet_of_moments, moments
from gansmith.metrics.reference import COUNTS, _parts, load_references, measure_reference


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_fd_of_real_images_falls_with_their_number(name):
    references = load_references(name, ImageSpec(size=28, channels=1, num_classes=10))
    assert set(references) == {"trained", "random"}
    for reference in references.values():
        distances = [reference.fd_real[count] for count in COUNTS]
        assert distances == sorted(distances, reverse=True) and 0 < distances[-1] < distances[0]
        assert reference.moments[1].shape == (224, 224)


def test_the_fd_of_real_images_is_a_mean_over_disjoint_parts():
    rng = np.random.default_rng(0)
    reference = measure_reference(rng.normal(size=(3000, 4)), rng.normal(size=(2500, 4)))
    assert set(reference.fd_real) == {1000, 2000}
    assert reference.fd_real[1000] == pytest.approx((1 / 1000 + 1 / 3000) * (1.5 * 4 + 6 / 2), rel=0.5)
    test, validation = rng.normal(size=(3000, 4)), rng.normal(size=(2500, 4))
    validation[:, 0] += np.arange(2500) / 500  # so that parts differ
    parts = _parts(validation, 1000)
    rows = np.concatenate([part[:, 1] for part in parts])
    assert [len(part) for part in parts] == [1000, 1000] and len(np.unique(rows)) == 2000
    distances = [frechet_of_moments(moments(test), moments(part)) for part in parts]
    assert measure_reference(test, validation).fd_real[1000] == pytest.approx(np.mean(distances), rel=1e-9)
    assert abs(distances[0] - distances[1]) > 1e-3
