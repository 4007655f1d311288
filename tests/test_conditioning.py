"""Class ids: how they are drawn, the labels they belong to, and how a run's data decides on them."""

from dataclasses import replace

import pytest
import torch
from test_sampling import build_model

from gansmith.conditioning import UNCONDITIONAL, Conditioning, condition, conditioned_spec, spread_evenly
from gansmith.config import resolve
from gansmith.data.images import Images, ImageSpec
from gansmith.errors import ConfigError
from gansmith.sampling import sample


def test_ids_follow_their_frequencies():
    shares = torch.bincount(spread_evenly(torch.tensor([0.2, 0.0, 0.5, 0.3]), seed=0, count=4000), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.0, 0.5, 0.3]), atol=0.025, rtol=0)


def test_any_run_of_ids_holds_each_in_proportion():
    frequencies = torch.tensor([0.2, 0.0, 0.5, 0.3])
    ids = spread_evenly(frequencies, seed=3, count=5000)
    assert torch.equal(ids[:37], spread_evenly(frequencies, seed=3, count=37))
    assert not torch.equal(ids, spread_evenly(frequencies, seed=4, count=5000))
    for start, count in ((0, 10), (17, 40), (1234, 3000)):
        counts = torch.bincount(ids[start : start + count], minlength=4)
        assert (counts - count * frequencies).abs().max() < 3.0  # independent ones: 27 of 3,000
    thousand = torch.bincount(spread_evenly(torch.ones(1000), seed=0, count=10_000), minlength=1000)
    assert thousand.min() >= 8 and thousand.max() <= 12


def test_chosen_labels_repeat_and_unknown_ones_are_refused():
    model = build_model()
    assert model.conditioning.draw(seed=0, count=5, labels=[2, 0]).tolist() == [2, 0, 2, 0, 2]
    for wrong in ([10], [-1], []):
        with pytest.raises(ConfigError, match="knows 0 to 9"):
            model.conditioning.draw(seed=0, count=5, labels=wrong)
    for conditioning in ("none", "clusters"):
        with pytest.raises(ConfigError, match="takes no labels"):
            build_model(conditioning=conditioning).conditioning.draw(seed=0, count=5, labels=[1])
        assert sample(build_model(conditioning=conditioning), seed=0, count=3)[1].tolist() == [-1, -1, -1]


def test_chosen_labels_draw_their_sub_clusters_by_frequency():
    model = build_model(clusters_per_class=3)
    frequencies = torch.tensor([0.1, 0.0, 0.3]).repeat(10).double()
    frequencies[12:15] = 0  # label 4
    model = replace(model, conditioning=replace(model.conditioning, frequencies=frequencies))
    ids = model.conditioning.draw(seed=1, count=400, labels=[7, 2])
    assert model.conditioning.label_of(ids).tolist() == [7, 2] * 200
    assert torch.equal(ids[:9], model.conditioning.draw(seed=1, count=9, labels=[7, 2]))
    for label in (2, 7):
        shares = torch.bincount(ids[ids // 3 == label] - 3 * label, minlength=3) / 200
        torch.testing.assert_close(shares, torch.tensor([0.25, 0.0, 0.75]), rtol=0, atol=0.02)
    images, labels = sample(model, seed=1, count=400)
    assert set(labels.tolist()) == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert torch.equal(images[:3], sample(model, seed=1, count=3)[0])
    with pytest.raises(ConfigError, match="no label 4"):
        model.conditioning.draw(seed=0, count=5, labels=[4])


@pytest.mark.parametrize("count", [1, 5, 8, 10, 13, 21])  # steps of the golden ratio nearly close after 8, 13 and 21
def test_chosen_labels_spread_over_their_sub_clusters(count):
    conditioning = Conditioning(torch.full((2000,), 1 / 2000, dtype=torch.float64), 200, has_labels=True)
    labels = [k % 10 for k in range(count)]
    ids = conditioning.draw(seed=0, count=10 * count, labels=labels)
    each = labels.count(0) * 10
    drawn = (ids[ids // 200 == 0] % 200).sort().values
    gaps = torch.cat([drawn[1:] - drawn[:-1], drawn[:1] + 200 - drawn[-1:]])
    # No gap is more than 1.9 times the mean one, however many steps of the golden ratio are taken.
    assert len(drawn) == each and 200 / each <= gaps.max() <= 380 / each + 1


def test_labels_ids_and_shares_of_sub_clusters_belong_together():
    conditioning = Conditioning(torch.tensor([0.1, 0.2, 0.0, 0.0, 0.3, 0.4]).double(), 2, has_labels=True)
    assert len(conditioning) == 6
    assert conditioning.label_of(torch.arange(6)).tolist() == [0, 0, 1, 1, 2, 2]
    assert conditioning.known_labels.tolist() == [0, 2]
    torch.testing.assert_close(conditioning.label_shares.sum(1), torch.tensor([0.3, 0.0, 0.7]).double())
    assert UNCONDITIONAL.label_of(torch.zeros(3, dtype=torch.int64)).tolist() == [-1, -1, -1]


def test_a_grid_has_a_column_for_each_label_where_they_fit_and_frequencies_otherwise():
    conditioning = Conditioning(torch.tensor([0.1, 0.2, 0.0, 0.0, 0.3, 0.4]).double(), 2, has_labels=True)
    drawn = conditioning.draw_grid(400, 10)
    assert conditioning.label_of(drawn).tolist() == [0, 2, 0, 2, 0, 2, 0, 2, 0, 2] * 40
    assert torch.equal(drawn, conditioning.draw_grid(400, 10))
    within = torch.bincount(drawn, minlength=6) / 200
    torch.testing.assert_close(within, torch.tensor([1 / 3, 2 / 3, 0, 0, 3 / 7, 4 / 7]), rtol=0, atol=0.12)
    many = Conditioning(torch.tensor([0.5, *[0.1] * 5]).double(), has_labels=True)
    shares = torch.bincount(many.draw_grid(2000, 5), minlength=6) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.5, *[0.1] * 5]), rtol=0, atol=0.05)
    assert UNCONDITIONAL.draw_grid(5, 10).tolist() == [0] * 5


def training_images(labels):
    pixels = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    return Images(pixels, torch.tensor(labels) if labels[0] is not None else None)


def test_labels_are_the_ids_where_they_have_no_sub_clusters():
    images = training_images([0, 2, 2, 1] * 10)
    config, conditioning, y = condition(resolve("mlp-small", arguments={"conditioning": "auto"}), images)
    assert config.conditioning == "labels" and torch.equal(y, images.labels)
    assert conditioning.frequencies.tolist() == [0.25, 0.25, 0.5] and conditioning.has_labels
    assert conditioning.ids_per_class == 1 and conditioning.codes is None


def test_sub_clusters_divide_each_label_into_as_many_as_its_images_allow():
    images = training_images([0] * 100 + [1] * 60)
    choices = {"conditioning": "labels", "clusters_per_class": 5}
    config, conditioning, y = condition(resolve("mlp-small", arguments=choices), images)
    assert config.clusters_per_class == conditioning.ids_per_class == 2  # 24 images each, of the rarest label's 60
    assert torch.equal(conditioning.label_of(y), images.labels)
    torch.testing.assert_close(conditioning.frequencies, torch.bincount(y, minlength=4) / 160, check_dtype=False)
    assert conditioning.codes is not None and len(conditioning.codes) == 4


def test_clusters_take_the_place_of_labels_that_are_missing():
    images = training_images([None] * 100)
    choices = {"conditioning": "auto", "clusters": 50}
    config, conditioning, y = condition(resolve("mlp-small", arguments=choices), images)
    assert (config.conditioning, config.clusters) == ("clusters", 4)
    assert not conditioning.has_labels and len(conditioning) == 4 and set(y.tolist()) == {0, 1, 2, 3}
    with pytest.raises(ConfigError, match="has no labels; use --conditioning clusters or none"):
        condition(resolve("mlp-small", arguments={"conditioning": "labels"}), images)
    config, conditioning, y = condition(resolve("mlp-small"), images)
    assert conditioning is UNCONDITIONAL and y.tolist() == [0] * 100


@pytest.mark.parametrize(("kind", "ids"), [("none", 0), ("labels", 30), ("clusters", 7)])
def test_networks_have_as_many_classes_as_there_are_ids(kind, ids):
    config = resolve("mlp-small", arguments={"conditioning": kind, "clusters": 7, "clusters_per_class": 3})
    assert conditioned_spec(ImageSpec(8, 1, 10), config) == ImageSpec(8, 1, ids)
