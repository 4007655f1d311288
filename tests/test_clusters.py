"""K-means clusters as pseudo-labels, and the edge histograms they are computed from."""

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from gansmith.conditioning import spread_evenly
from gansmith.data import clusters
from gansmith.data.clusters import (
    LABEL_CODES,
    LABEL_WEIGHT,
    ORIENTATIONS,
    edge_histograms,
    find_clusters,
    find_subclusters,
)
from gansmith.data.embedded import embedded_mnist
from gansmith.data.on_disk import open_array


def test_edges_lie_where_they_are_and_turn_with_the_image():
    """A step across the image has edges of one orientation about its place; turned by a quarter, of the other."""
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 14:] = 255
    upright, lying = (edge_histograms(x).view(ORIENTATIONS, 7, 7) for x in (image, image.transpose(2, 3)))
    assert upright.square().sum().item() == pytest.approx(1)
    torch.testing.assert_close(upright, lying.roll(ORIENTATIONS // 2, 0).transpose(1, 2))
    assert upright[0].sum() / upright.sum() == pytest.approx(0.5) and upright[ORIENTATIONS // 2].max() < 1e-6
    assert upright[0, :, 3].min() > 0 and upright[0, :, (0, 1, 5, 6)].max() == 0
    torch.testing.assert_close(edge_histograms(255 - image), edge_histograms(image))
    assert not edge_histograms(image * 0).any()


def test_clusters_hold_digits_of_one_kind():
    """Better than clusters of pixels alone, which hold 86 % of one digit here; at random, 21 %."""
    digits = embedded_mnist().take(torch.arange(0, 5000, 2))
    ids, codes = find_clusters(digits.pixels, 100)
    table = torch.zeros(100, 10).index_put_((ids, digits.labels), torch.ones(len(ids)), accumulate=True)
    assert 0.90 < table.max(1).values.sum() / len(ids) < 0.99 and codes.shape == (100, 50)


def test_sub_clusters_stay_within_their_class():
    digits = embedded_mnist().take(torch.arange(0, 5000, 2))
    rows = digits.labels != 3
    ids, codes = find_subclusters(digits.pixels[rows], digits.labels[rows], 6, num_labels=11)
    assert torch.equal(ids // 6, digits.labels[rows]) and len(ids.unique()) == 54
    names, centres = codes[:, -LABEL_CODES:], codes[:, :-LABEL_CODES]
    torch.testing.assert_close(
        names @ names.T, LABEL_WEIGHT**2 * torch.eye(11).repeat_interleave(6, 0).repeat_interleave(6, 1)
    )
    assert codes.shape == (66, 50 + LABEL_CODES) and not centres[18:24].any() and not centres[60:].any()
    apart = torch.cdist(centres[:6], centres[:6])
    assert apart[~torch.eye(6, dtype=torch.bool)].min() > 0.1


@pytest.mark.parametrize("labelled", [False, True], ids=["clusters", "sub-clusters"])
def test_ids_spread_evenly_have_the_brightness_of_all_images(labelled):
    """Half as many ids as there are clusters: numbered in another order, their mean strays several times as far."""
    digits = embedded_mnist()
    if labelled:
        ids, codes = find_subclusters(digits.pixels, digits.labels, 20, num_labels=10)
    else:
        ids, codes = find_clusters(digits.pixels, 200)
    brightness, sizes = digits.pixels.double().mean((1, 2, 3)), torch.bincount(ids, minlength=200)
    means = torch.zeros(200).double().index_add_(0, ids, brightness) / sizes.clamp(min=1)
    for of_label in means.view(10 if labelled else 1, -1):
        assert torch.equal(of_label, of_label.sort().values) and of_label[-1] > 1.5 * of_label[0]

    def strays(order: torch.Tensor) -> float:
        """Return the root mean square distance, over seeds, of the mean of 100 ids from that of all images."""
        drawn = [means[order][spread_evenly(sizes[order], seed=seed, count=100)].mean() for seed in range(40)]
        return (torch.stack(drawn) - brightness.mean()).square().mean().sqrt().item()

    anyhow = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert 0 < strays(torch.arange(200)) < strays(anyhow) / 2
    assert len(codes) == 200


def test_k_means_is_as_good_as_that_of_scikit_learn():
    """The mean squared distance from the centre, on codes of digits; centres that are never moved have 1.4 times it."""
    codes, _ = clusters._components(embedded_mnist().pixels)
    ids, centres = clusters._kmeans(codes, 60)
    oracle = MiniBatchKMeans(60, random_state=0, n_init=1, batch_size=4096).fit(codes.numpy())
    assert (codes - centres[ids]).square().sum() / oracle.inertia_ == pytest.approx(1, abs=0.03)
    assert torch.equal(ids, torch.cdist(codes, centres).argmin(1))
    still = clusters._first_centres(codes, 60, torch.Generator().manual_seed(0))
    assert 1.2 < torch.cdist(codes, still).amin(1).square().sum() / oracle.inertia_ < 1.8


def test_components_are_those_of_scikit_learn():
    """Up to their sign, with the variances in their order, in spite of the randomised decomposition."""
    images = embedded_mnist().take(torch.arange(0, 5000, 5)).pixels
    codes, deviations = clusters._components(images)
    blocks = [block / clusters._spread(block) for block in clusters._blocks(images)]
    sample = torch.cat([blocks[0], clusters.EDGE_WEIGHT * blocks[1]], dim=1).numpy()
    oracle = torch.from_numpy(PCA(50, svd_solver="full").fit_transform(sample))[:, :10]
    signs = (oracle * codes[:, :10]).sum(0).sign()
    torch.testing.assert_close(codes[:, :10] * signs, oracle, atol=0.02, rtol=0)
    torch.testing.assert_close(deviations[:10], oracle.std(0, correction=0), rtol=1e-3, atol=0)


def test_clusters_do_not_depend_on_the_number_of_threads():
    """A run may continue on a machine with more or fewer cores."""
    images, threads, found = embedded_mnist().take(torch.arange(0, 5000, 6)).pixels, torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(find_clusters(images, 30))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for ids, codes in found[1:]:
        assert torch.equal(ids, found[0][0]) and torch.equal(codes, found[0][1])


def test_images_that_are_all_equal_are_clustered():
    ids, codes = find_clusters(torch.full((60, 1, 28, 28), 7, dtype=torch.uint8), 2)
    assert ids.shape == (60,) and codes.isfinite().all()


def test_clusters_of_few_images_have_codes_of_ordinary_size():
    """Ten images lie in nine dimensions: the tenth component is rounding error and must not be scaled up."""
    few = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 1, 28, 28), dtype=np.uint8))
    ids, codes = find_clusters(few, 2)
    assert sorted(ids.unique().tolist()) == [0, 1] and codes.shape == (2, 10)
    assert 0.5 < codes.abs().max() < 10 and (codes[:, 9] == 0).all()


def test_large_images_are_averaged_down_first():
    """So that what takes a second at 64 pixels is as fast as at 32, and finds the same."""
    small = embedded_mnist().take(torch.arange(0, 5000, 10)).pixels
    small = torch.nn.functional.pad(small, [2] * 4)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    ids, codes = find_clusters(small, 20)
    again, same = find_clusters(large, 20)
    assert torch.equal(ids, again)
    torch.testing.assert_close(codes, same)
    between, _ = find_clusters(torch.nn.functional.pad(small, [8] * 4), 20)  # 48 pixels are as they are
    assert between.shape == ids.shape


@pytest.mark.parametrize("labelled", [False, True])
def test_clusters_of_images_on_disk_are_those_in_memory_and_found_once(tmp_path, monkeypatch, labelled, caplog):
    digits = embedded_mnist().take(torch.arange(0, 5000, 10))
    np.save(tmp_path / "x.npy", digits.pixels.numpy())
    stored, rows = open_array(tmp_path / "x.npy"), torch.arange(499, -1, -1)

    def find(pixels, rows):
        labels = digits.labels[rows]
        return find_subclusters(pixels, labels, 3, num_labels=10) if labelled else find_clusters(pixels, 20)

    for order in (rows, rows[:300]):
        expected = find(digits.pixels[order], order)
        caplog.clear()
        found = find(stored.view_of(order), order)
        assert f"finding clusters of {len(order)} images" in caplog.text
        with monkeypatch.context() as context:
            context.setattr(clusters, "_components", lambda pixels: pytest.fail("they were found again"))
            again = find(stored.view_of(order), order)
        for one in (found, again):
            assert torch.equal(one[0], expected[0]) and torch.equal(one[1], expected[1])
