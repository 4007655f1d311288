"""The evaluation protocol on real and spoilt digits of the embedded subset."""

import pytest
import torch

from gansmith.data import load_data
from gansmith.data.images import Images, ImageSpec
from gansmith.errors import DataError
from gansmith.metrics import gates, protocol
from gansmith.metrics.evaluator_training import fit_and_held_out
from gansmith.metrics.features import load_evaluators
from gansmith.metrics.protocol import Real, _without, evaluate_samples
from gansmith.metrics.residual import ResidualNetwork


@pytest.fixture(scope="module")
def subset():
    return load_data("mnist")


@pytest.fixture(scope="module")
def halves(subset):
    """2,600 training, 1,200 validation and 1,200 test images, without shipped references."""
    order = torch.randperm(len(subset), generator=torch.Generator().manual_seed(7))
    train, validation, test = (subset.take(order[a:b]) for a, b in ((0, 2600), (2600, 3800), (3800, 5000)))
    return Real(train, validation, test)


@pytest.fixture(scope="module")
def networks(subset):
    return load_evaluators(subset)


def test_every_gate_has_figures_and_passes_new_real_images(halves, networks):
    real = Real(halves.train.take(torch.arange(1400)), halves.validation, halves.test)
    found = evaluate_samples(halves.train.take(torch.arange(1400, 2600)), real, networks)
    assert found.n == 1000 and set(found.fd_ratios) == {"trained", "random"}
    assert found.is_valid and found.fd_ratio == max(found.fd_ratios.values()) == pytest.approx(1.0, abs=0.25)
    assert set(found.gates) == set(gates.GATES)
    for name, gate in found.gates.items():
        assert gate["ok"] is True, name
        assert {limit.figure for limit in gates.GATES[name].limits} <= set(found.metrics)
        assert gate["value"] is not None and gate["limit"] is not None and gate["meaning"]
    assert all(set(figures) == {"value", "real"} for figures in found.metrics.values())


@pytest.mark.slow
def test_samples_among_the_real_images_are_not_compared_with_themselves(halves, networks):
    both = Real(halves.train, Images(*_joined(halves.validation, halves.test)), None)
    found = evaluate_samples(halves.validation, both, networks, quick=True)
    assert any("removed from the comparison" in notice for notice in found.notices)
    assert found.fd_ratio is None and found.metrics["kid_z"]["value"] < 4


@pytest.mark.slow
def test_memorisation_of_a_large_set_is_measured_against_some_of_it_and_said(halves, networks, monkeypatch):
    whole = evaluate_samples(halves.test, halves, networks)
    assert not any("memorisation" in notice for notice in whole.notices)
    monkeypatch.setattr(protocol, "MAX_FLAT_BYTES", 4 * 784 * 1000)
    some = evaluate_samples(halves.test, halves, networks)
    assert any("measured against 1,000 of 2,600 training images" in notice for notice in some.notices)
    assert some.metrics["authentic"] != whole.metrics["authentic"] and some.fd_ratio == whole.fd_ratio


def _joined(a, b):
    return torch.cat([a.pixels, b.pixels]), torch.cat([a.labels, b.labels])


def test_for_test_images_as_samples_the_rest_of_them_gives_the_real_figures(halves, networks):
    more = Real(halves.train.take(torch.arange(200)), halves.validation, halves.train.take(torch.arange(200, 2600)))
    found = evaluate_samples(more.test.take(torch.arange(0, 2400, 2)), more, networks, quick=True)
    assert any("those of the rest of the test images" in notice for notice in found.notices)
    assert found.fd_ratio == pytest.approx(1.0, abs=0.25)


def test_a_whole_test_set_as_samples_is_halved(halves, networks):
    more = Real(halves.train.take(torch.arange(200)), halves.validation, halves.train.take(torch.arange(200, 2600)))
    found = evaluate_samples(more.test, more, networks, quick=True)
    assert any("half of them is evaluated" in notice for notice in found.notices)
    assert found.fd_ratio == pytest.approx(1.0, abs=0.25)


@pytest.mark.slow
def test_missing_classes_and_wrong_pixels_fail_their_gates(halves, networks):
    real = halves.train
    no_ones = real.take(torch.nonzero(real.labels != 1).flatten()[:1100])
    assert evaluate_samples(no_ones, halves, networks, quick=True).gates["classes"]["ok"] is False
    brighter = Images((real.pixels[:1100].int() + 12).clamp(max=255).byte())
    assert evaluate_samples(brighter, halves, networks, quick=True).gates["pixels"]["ok"] is False
    repeated = real.take(torch.arange(1100) % 40)
    assert evaluate_samples(repeated, halves, networks, quick=True).gates["coverage"]["ok"] is False


@pytest.mark.slow
def test_labels_that_were_not_asked_for_are_said(halves, networks):
    real = halves.train.take(torch.arange(1000))
    shifted = Images(real.pixels, (real.labels + 1) % 10)
    notes = [
        "only 0% of samples show the label that was asked for"
        in " ".join(evaluate_samples(samples, halves, networks, quick=True).notices)
        for samples in (real, shifted)
    ]
    assert notes == [False, True]


@pytest.mark.parametrize(
    ("validation", "test", "most", "said"),
    [
        (1_999, None, 0, []), (2_000, None, 1_000, ["half"]), (2_001, None, 1_000, ["half"]),
        (1_000, 1_000, 1_000, []), (1_000, 5_000, 1_000, []), (5_000, 1_500, 1_500, []), (999, 2_000, 999, []),
        (1_200, 999, 0, ["999"]), (2_400, 999, 1_200, ["999", "half"]), (12, 5, 0, ["5"]), (5, 12, 5, []),
    ],
)  # fmt: skip
def test_both_sides_of_a_ratio_have_images_enough(validation, test, most, said):
    parts = [count and Images(torch.zeros(count, 1, 4, 4, dtype=torch.uint8)) for count in (1, validation, test)]
    notices = []
    compared = protocol._real_images(Images(torch.ones(1, 1, 4, 4, dtype=torch.uint8)), Real(*parts), notices)
    assert (compared.most, [words.split()[0] for words in notices]) == (most, said)


def test_too_few_images_for_a_ratio_get_a_kernel_distance(halves, networks):
    found = evaluate_samples(halves.validation.take(torch.arange(500)), halves, networks, quick=True)
    assert found.fd_ratio is None and found.fd_ratios == {} and found.n == 500
    assert any("no FD ratio: it takes 1,000 samples" in notice for notice in found.notices)
    assert abs(found.metrics["kid_z"]["value"]) < 4 and found.metrics["kid_z"]["real"] == 0
    nothing = evaluate_samples(halves.validation.take(torch.arange(5)), halves, networks, quick=True)
    assert nothing.metrics == {} and not nothing.is_valid and nothing.n == 5


@pytest.mark.slow
def test_gates_pass_few_real_images_and_still_find_what_is_wrong(halves, networks, monkeypatch):
    few = halves.validation.take(torch.arange(150))
    real = Real(halves.train.take(torch.arange(1000)), few, None)
    draws = [halves.train.take(torch.arange(1000 + 150 * k, 1150 + 150 * k)) for k in range(10)]
    found = [evaluate_samples(draw, real, networks, quick=True) for draw in draws]
    assert all(one.is_valid for one in found)
    assert any("draws of 150 real images" in notice for notice in found[0].notices)
    spoilt = {
        "classes": real.train.take(torch.nonzero(real.train.labels != 1).flatten()[:150]),
        "coverage": real.train.take(torch.arange(150) % 15),
        "pixels": Images((draws[0].pixels.int() + 20).clamp(max=255).byte()),
    }
    for gate, samples in spoilt.items():
        assert evaluate_samples(samples, real, networks, quick=True).gates[gate]["ok"] is False, gate
    monkeypatch.setattr(protocol, "MANY", 0)
    monkeypatch.setattr(protocol, "MANY_OF_A_CLASS", 0)
    assert not all(evaluate_samples(draw, real, networks, quick=True).is_valid for draw in draws)


def test_draws_of_real_images_have_every_figure_with_a_limit(halves, networks):
    (draw, *_) = draws = protocol._draw_real(halves.train, 200, networks, protocol.GATED, quick=False)
    assert len(draws) == protocol.DRAWS and all(set(figure) == {"value", "real"} for figure in draw.values())
    assert {limit.figure for gate in gates.GATES.values() for limit in gate.limits} <= {*draw, "fd_ratio_least"}


def test_copies_of_test_images_that_differ_by_a_grey_level_are_found(halves, networks):
    changed = (halves.test.pixels.int() + 1).clamp(max=255).byte()
    gate = evaluate_samples(Images(changed), halves, networks).gates["memorisation"]
    assert gate["ok"] is False and gate["figure"] == "fd_ratio_least" and gate["value"] < 0.2


def test_few_images_are_measured_against_draws_that_the_evaluator_has_not_learnt(halves, networks, monkeypatch):
    drawn = []
    monkeypatch.setattr(protocol, "_draw_real", lambda images, *rest, **named: drawn.append(images) or [])
    monkeypatch.setattr(protocol, "ResidualNetwork", type(networks["trained"]))  # as if it were trained on demand
    few = Real(halves.train, halves.validation.take(torch.arange(150)), None)
    evaluate_samples(halves.test.take(torch.arange(150)).without_labels(), few, networks, quick=True)
    unseen = {
        image.tobytes() for part in (fit_and_held_out(halves.train)[1], few.validation) for image in part.pixels.numpy()
    }
    assert len(drawn[0]) == len(unseen) == 800 and {image.tobytes() for image in drawn[0].pixels.numpy()} == unseen


@pytest.mark.parametrize(
    ("real", "value", "said"), [(0.75, 0.3, True), (0.75, 0.7, False), (None, 0.3, True), (None, 0.7, False)]
)
def test_labels_that_samples_do_not_show_are_said_whatever_the_evaluator_knows(networks, real, value, said):
    rough = ResidualNetwork(ImageSpec(28, 1, 10), num_classes=10, name="rough")
    rough.accuracy.fill_(0.75)
    found = protocol._on_labels({"label_accuracy": {"value": value, "real": real}}, {"trained": rough})
    assert [words for words in found if "of samples show the label" in words and "75%" in words] == found
    assert bool(found) == said


@pytest.mark.parametrize(
    ("counts", "size", "widened"),
    [
        ((), 10_000, ()),
        ((900,) * 10, 1_999, protocol.GATED),
        ((1000,) * 9 + (850,), 2_000, ()),
        ((1000,) * 9 + (500,), 2_000, protocol.ON_CLASSES),
        ((1000, 0, 20), 10_000, ()),
        ((1000, 0, 10), 10_000, protocol.ON_CLASSES),
        ((40,) * 47, 10_000, protocol.ON_CLASSES),
    ],
)
def test_limits_on_classes_are_widened_where_classes_are_rare_or_many(counts, size, widened):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) if counts else None
    images = Images(torch.zeros(len(labels) if counts else 9, 1, 4, 4, dtype=torch.uint8), labels)
    assert protocol.limits_to_widen(images, size) == widened


def test_a_dozen_images_are_evaluated_without_an_error(halves, networks):
    few = Real(halves.train.take(torch.arange(40)), halves.validation.take(torch.arange(12)), None)
    found = evaluate_samples(halves.validation.take(torch.arange(100, 112)), few, networks)
    assert found.n == 12 and found.gates["coverage"]["ok"] is True and found.gates["memorisation"]["ok"] is None
    white = Images(torch.full((12, 1, 28, 28), 255, dtype=torch.uint8))
    assert evaluate_samples(white, few, networks).gates["pixels"]["ok"] is False


def test_samples_of_another_shape_are_refused(halves, networks):
    colour = Images(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), source="x.npz")
    with pytest.raises(DataError, match=r"x.npz holds images of \(3, 28, 28\) and the data set is of \(1, 28, 28\)"):
        evaluate_samples(colour, halves, networks)


def test_what_is_removed_from_the_comparison_leaves_its_classes_even(halves):
    images = halves.validation
    assert images.labels is not None
    is_three = images.labels == 3
    others = images.take(torch.nonzero(~is_three).flatten())
    notices: list[str] = []
    few = _without(images, {image.tobytes() for image in others.pixels[::3].numpy()}, notices)
    shares = few.labels.bincount() / images.labels.bincount()
    assert 0.5 < shares.min() and shares.max() < 0.75 and "too many of a class" in notices[0]
    threes = images.take(torch.nonzero(is_three).flatten())
    notices.clear()
    assert _without(images, {image.tobytes() for image in threes.pixels.numpy()}, notices) is images
    assert "nearly all real images of a class" in notices[0]


@pytest.mark.slow
def test_few_new_images_are_no_copies_and_copies_are(halves, networks):
    """Limits of the gate for copies are widened by draws, which need held-out images of their own."""
    new, real = halves.test, Real(halves.train, halves.validation, None)
    results = []
    for k in range(10):
        some = new.take(torch.arange(40 * k, 40 * (k + 1)))
        results.append(evaluate_samples(some, real, networks).gates["memorisation"])
    assert sum(one["ok"] is True for one in results) >= 9
    copies = evaluate_samples(halves.train.take(torch.arange(40)), real, networks).gates["memorisation"]
    assert copies["ok"] is False and any(one["limit"] != copies["limit"] or one["figure"] for one in results)
