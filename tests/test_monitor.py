"""Health signals of a run: each sees its own failure, and measuring changes nothing."""

import pytest
import torch

from gansmith.config import resolve
from gansmith.data.embedded import embedded_mnist
from gansmith.data.images import to_uint8
from gansmith.training.inputs import load_training_data
from gansmith.training.monitor import Monitor, _flat
from gansmith.training.state import start_networks

CONFIG = resolve("default", arguments={"images": 10_000, "batch_size": 10, "conditioning": "labels"})


class FixedGenerator(torch.nn.Module):
    """Generates the images it is given."""

    def __init__(self, pixels):
        super().__init__()
        self.register_buffer("pixels", pixels)

    def forward(self, z, y):
        return self.pixels.float() / 127.5 - 1


class FixedDiscriminator(torch.nn.Module):
    """Rates pixels by a function."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, images, y):
        return self.rate(to_uint8(images))


UNDECIDED = FixedDiscriminator(lambda pixels: torch.zeros(len(pixels)))


@pytest.fixture(scope="module")
def monitor():
    images = embedded_mnist()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    train, others = images.take(order[:2000]), images.take(order[2000:])
    frequencies = torch.bincount(train.labels) / len(train)
    return Monitor(CONFIG, train, others, train.labels, frequencies), train, others


def with_labels(images, labels):
    return torch.stack([images.pixels[images.labels == label][k % 8] for k, label in enumerate(labels.tolist())])


def test_real_images_look_like_real_ones(monitor):
    measure, _, others = monitor
    signals = measure.measure(FixedGenerator(with_labels(others, measure.y)), UNDECIDED, 0)
    assert signals["diversity_within"] == pytest.approx(1, abs=0.15)
    assert signals["diversity_across"] == pytest.approx(1, abs=0.15)
    assert signals["classes_generated"] == pytest.approx(1, abs=0.05)
    assert signals["copy_distance"] == pytest.approx(1, abs=0.15)


def test_ids_that_share_classes_are_no_missing_classes(monitor):
    _, train, others = monitor
    least = []
    for each in range(2, 14):  # ids of a class: 8 are chosen of all, and several may be of one class
        y = train.labels * each + torch.arange(len(train)) % each
        config = CONFIG.replace(clusters_per_class=each)
        measure = Monitor(config, train, None, y, torch.bincount(y) / len(y))
        asked = measure.y // each
        signals = measure.measure(FixedGenerator(with_labels(others, asked)), UNDECIDED, 0)
        assert signals["classes_generated"] == pytest.approx(1, abs=0.15)
        assert signals["label_accuracy"] > 0.9
        least.append(len(asked.unique()))
    assert min(least) < 6  # of ten classes: their share alone would say that some are missing


def test_each_signal_sees_its_own_failure(monitor):
    measure, train, others = monitor
    real = with_labels(others, measure.y)
    first = torch.stack([real[8 * (k // 8)] for k in range(64)])
    assert measure.measure(FixedGenerator(first), UNDECIDED, 0)["diversity_within"] == 0
    assert measure.measure(FixedGenerator(first), UNDECIDED, 0)["diversity_across"] > 1
    same = real[:8].repeat(8, 1, 1, 1)
    signals = measure.measure(FixedGenerator(same), UNDECIDED, 0)
    assert signals["diversity_across"] == 0 and signals["classes_generated"] < 0.2
    assert measure.measure(FixedGenerator(with_labels(train, measure.y)), UNDECIDED, 0)["copy_distance"] == 0


def test_images_of_other_labels_than_asked_for_are_seen(monitor):
    _, train, others = monitor
    config = CONFIG.replace(clusters_per_class=1)
    measure = Monitor(config, train, others, train.labels, torch.bincount(train.labels) / len(train))
    asked, shifted = with_labels(others, measure.y), with_labels(others, (measure.y + 1) % 10)
    assert measure.measure(FixedGenerator(asked), UNDECIDED, 0)["label_accuracy"] > 0.9
    signals = measure.measure(FixedGenerator(shifted), UNDECIDED, 0)
    assert signals["label_accuracy"] < 0.1 and signals["diversity_across"] > 0.9


def test_equal_training_images_have_no_diversity_to_compare_with(monitor):
    _, train, others = monitor
    same = train.take(torch.zeros(64, dtype=torch.int64))
    measure = Monitor(CONFIG.replace(conditioning="none"), same, others, torch.zeros(64).long(), torch.ones(1))
    signals = measure.measure(FixedGenerator(with_labels(others, measure.y)), UNDECIDED, 0)
    assert "diversity_within" not in signals and "copy_distance" in signals


def test_chosen_classes_are_no_copies_of_themselves(monitor):
    """Threes lie nearer to threes than digits of all classes do; that is not memorisation."""
    _, train, others = monitor
    threes = train.take(torch.nonzero(train.labels == 3).flatten())
    y = torch.zeros(len(threes), dtype=torch.int64)
    measure = Monitor(CONFIG.replace(conditioning="none", classes="3"), threes, others, y, torch.ones(1))
    drawn = others.pixels[others.labels == 3][:64]
    assert measure.measure(FixedGenerator(drawn), UNDECIDED, 0)["copy_distance"] == pytest.approx(1, abs=0.15)


def among(images, pixels):
    return torch.stack([(images == image).flatten(1).all(1).any() for image in pixels]).float()


@pytest.mark.slow
def test_an_overfitted_discriminator_is_seen(monitor):
    measure, train, others = monitor
    draw = torch.Generator().manual_seed(0)
    G = FixedGenerator(torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8))
    noise = 0.1 * torch.randn(64, generator=draw)

    def overfitting(rate):
        return measure.measure(G, FixedDiscriminator(lambda pixels: rate(pixels) + noise), 0).get("d_overfit")

    assert overfitting(lambda pixels: among(train.pixels, pixels)) == pytest.approx(1, abs=0.1)
    assert overfitting(lambda pixels: -3 * among(train.pixels, pixels)) == pytest.approx(1, abs=0.1)  # flipped labels
    assert overfitting(lambda pixels: -pixels.float().mean((1, 2, 3)) / 100) == pytest.approx(
        0, abs=0.15
    )  # noise is bright
    assert overfitting(lambda pixels: torch.zeros(64)) is None  # D cannot tell them apart
    both = torch.cat([train.pixels, others.pixels])
    assert overfitting(lambda pixels: among(both, pixels)) == pytest.approx(0, abs=0.1)


def test_held_out_images_are_compared_with_those_of_the_same_class_id(tiny):
    for changes in ({"conditioning": "labels"}, {"conditioning": "clusters", "clusters": 4}, {"conditioning": "none"}):
        config, data = load_training_data(tiny(**changes))
        measure = Monitor(config, data.train, data.validation, data.y, data.conditioning.frequencies)
        shown, held_out = (to_uint8(images) for images in measure.pairs)
        assert among(data.train.pixels, shown).all() and not among(data.train.pixels, held_out).any()
        if data.validation.labels is not None:
            labels = [data.validation.labels[(data.validation.pixels == i).flatten(1).all(1)] for i in held_out]
            assert torch.equal(torch.cat(labels), measure.y)
    config, data = load_training_data(tiny(classes="3,7", conditioning="none"))
    chosen = Monitor(config, data.train, data.validation, data.y, data.conditioning.frequencies)
    assert chosen.pairs is None
    G, D = FixedGenerator(data.train.pixels[torch.arange(64) % len(data.train)]), UNDECIDED
    assert chosen.measure(G, D, 0)["classes_in_data"] == pytest.approx(0.2, abs=0.03)
    assert "classes_in_data" not in measure.measure(G, D, 0)


def test_noise_is_not_called_a_collapse_of_classes(monitor):
    measure, _, others = monitor
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 1, 28, 28), generator=draw, dtype=torch.uint8)
    assert "classes_generated" not in measure.measure(FixedGenerator(noise), UNDECIDED, 0)
    ones = others.pixels[others.labels == 1][:64]
    assert measure.measure(FixedGenerator(ones), UNDECIDED, 0)["classes_generated"] < 0.2


def test_measuring_moves_nothing(tiny):
    config, data = load_training_data(tiny("mlp-keras", g_dropout=0.5))
    networks = start_networks(config, data.spec)
    both = torch.nn.ModuleList([networks.G, networks.D])
    before = {name: value.clone() for name, value in both.state_dict().items()}
    monitor = Monitor(config, data.train, data.validation, data.y, data.conditioning.frequencies)
    state = torch.random.get_rng_state()
    a, b = (monitor.measure(networks.G, networks.D, 64) for _ in range(2))
    assert a == b and "diversity_across" not in a
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in both.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_large_images_are_compared_by_sums_of_blocks_that_stay_exact():
    pixels = torch.randint(0, 256, (3, 3, 100, 100), dtype=torch.uint8)
    flat = _flat(pixels)
    assert flat.shape == (3, 3 * 33 * 33)
    assert flat[1, 0] == pixels[1, 0, :3, :3].double().sum()
    assert torch.cdist(flat, _flat(pixels.clone())).diagonal().tolist() == [0, 0, 0]
    assert torch.equal(_flat(pixels[..., :32, :32]), pixels[..., :32, :32].flatten(1).double())
