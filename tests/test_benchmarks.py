"""Counting modes: closed forms, real images, and the commands."""

import json
import math

import pytest
import torch

from gansmith.benchmarks import gaussians, losses, stacked_mnist
from gansmith.config import resolve
from gansmith.data import load_data
from gansmith.data.images import ImageSpec
from gansmith.data.stacked import stack
from gansmith.data.synthetic import SPREAD, draw_points, grid_centres, ring_centres
from gansmith.errors import DataError
from gansmith.networks import build_networks
from gansmith.training.techniques import build_techniques


def every_triple():
    return torch.cartesian_prod(*[torch.arange(10)] * 3)


def test_an_even_spread_has_no_divergence():
    assert stacked_mnist.spread(every_triple().repeat(3, 1)) == {"modes": 1000, "kl": 0.0, "kl_colours": 0.0}


def test_one_kind_alone_is_as_far_from_even_as_can_be():
    found = stacked_mnist.spread(torch.full((50, 3), 7))
    assert found["modes"] == 1
    assert found["kl"] == pytest.approx(math.log(1000), rel=1e-12)
    assert found["kl_colours"] == pytest.approx(3 * math.log(10), rel=1e-12)


def test_a_missing_digit_and_linked_colours_differ_in_their_figures():
    triples = every_triple()
    without_a_nine = stacked_mnist.spread(triples[triples[:, 0] != 9])
    assert without_a_nine["modes"] == 900
    assert without_a_nine["kl"] == pytest.approx(math.log(10 / 9), rel=1e-12)
    assert without_a_nine["kl_colours"] == pytest.approx(math.log(10 / 9), rel=1e-12)
    linked = stacked_mnist.spread(triples[triples[:, 0] == triples[:, 1]])
    assert linked["modes"] == 100
    assert linked["kl"] == pytest.approx(math.log(10), rel=1e-12)
    assert linked["kl_colours"] == pytest.approx(0.0, abs=1e-12)


def test_the_expected_kl_is_that_of_independent_triples():
    mnist = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])  # of its 60,000 training images
    assert stacked_mnist.expected_kl(mnist, 26_000) == pytest.approx(0.0235, abs=5e-5)
    assert stacked_mnist.expected_kl(torch.ones(10), 26_000) == pytest.approx(999 / 52_000, rel=1e-12)
    rng = torch.Generator().manual_seed(3)
    drawn = [
        torch.multinomial(mnist / mnist.sum(), 3 * 26_000, replacement=True, generator=rng).view(-1, 3)
        for _ in range(20)
    ]
    measured = torch.tensor([stacked_mnist.spread(digits)["kl"] for digits in drawn])
    # Twenty draws scatter by 0.00085 each, so their mean by 0.0002.
    assert float(measured.mean()) == pytest.approx(stacked_mnist.expected_kl(mnist, 26_000), abs=8e-4)


def test_stacks_are_triples_of_the_set_and_of_no_label(digit_dir, digits):
    stacks = load_data("stacked-mnist", data_dir=digit_dir)
    assert stacks.pixels.shape == (128_000, 3, 28, 28) and stacks.labels is None and stacks.spec.channels == 3
    known = {image.tobytes() for image in digits[0]}
    assert all(colour.numpy().tobytes() in known for colour in stacks.pixels[:100].flatten(0, 1))


def test_the_colours_of_a_stack_are_independent_and_always_the_same():
    pixels = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    stacks = stack(pixels, 4_000, seed=1)
    colours = stacks.flatten(1).T.double()
    assert float((torch.corrcoef(colours) - torch.eye(3)).abs().max()) < 0.06  # 3.8 standard errors
    assert stacks.unique().numel() == 200
    torch.testing.assert_close(stack(pixels, 4_000, seed=1), stacks)
    assert stack(pixels[:0], 4_000, seed=1).shape == (0, 3, 1, 1)


def test_colours_are_classified_one_by_one(digit_dir, digits):
    pixels, labels = torch.from_numpy(digits[0]), torch.from_numpy(digits[1])
    rows = torch.arange(300).view(100, 3)
    result = stacked_mnist.measure(pixels[rows], data_dir=str(digit_dir))
    network = stacked_mnist.load_feature_network("mnist", load_data("mnist").spec)
    right = stacked_mnist.classify(network, pixels[rows]) == labels[rows]
    assert float(right.float().mean()) > 0.97
    truth = stacked_mnist.spread(labels[rows])
    assert result["modes"] == pytest.approx(truth["modes"], abs=3)
    assert result["kl"] == pytest.approx(truth["kl"], abs=0.05)
    assert result["classifier_accuracy"] is None and result["samples"] == 100
    for wrong in (pixels[:9, None], pixels[rows][:0]):
        with pytest.raises(DataError, match="stacked digits"):
            stacked_mnist.measure(wrong)


@pytest.mark.slow
def test_real_stacks_have_the_expected_kl():
    """Of all 60,000 digits .0235 is expected, of the embedded 5,000, which are balanced, .0192."""
    stacks = load_data("stacked-mnist").pixels[-26_000:]
    result = stacked_mnist.measure(stacks)
    assert result["modes"] == result["real"]["modes"] == 1000
    assert result["kl"] == pytest.approx(result["expected_kl"], abs=0.0025)  # three standard deviations of one draw


@pytest.mark.parametrize("centres", [ring_centres(), grid_centres()], ids=["ring", "grid"])
def test_a_dot_is_read_where_it_was_drawn(centres):
    rng = torch.Generator().manual_seed(0)
    points = centres.repeat(20, 1) + SPREAD * torch.randn(20 * len(centres), 2, generator=rng)
    read, is_dot = gaussians.read_points(draw_points(points))
    torch.testing.assert_close(read, points, atol=0.15, rtol=0)  # a dot near the edge loses a little of its rim
    assert is_dot.all()


def test_only_dots_near_a_centre_count():
    centres = ring_centres()
    away = centres + torch.tensor([3.1 * SPREAD, 0.0])
    inside = centres[:3] + torch.tensor([2.9 * SPREAD, 0.0])
    assert gaussians.near_centres(draw_points(away), centres)["high_quality"] == 0.0
    found = gaussians.near_centres(torch.cat([draw_points(inside), draw_points(away[:1])]), centres)
    assert found == {"modes": 3, "of": 8, "high_quality": 0.75}


def test_a_centre_of_brightness_without_a_dot_does_not_count():
    centres = grid_centres()
    two = draw_points(centres[[7]]) // 2 + draw_points(centres[[17]]) // 2  # their middle is the grid's
    grey, black = torch.full((1, 1, 28, 28), 60, dtype=torch.uint8), torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    assert gaussians.near_centres(torch.cat([two, grey, black]), centres)["modes"] == 0


@pytest.mark.parametrize("data", gaussians.CENTRES)
def test_real_dots_are_near_as_often_as_a_gaussian_is(data):
    result = gaussians.measure(data, load_data(data).pixels)
    assert result["modes"] == result["of"] == result["real"]["modes"]
    # 1 - exp(-9/2); 10,000 draws scatter by 0.001, reading a dot from bytes moves it by a few hundredths of a pixel
    for share in (result["high_quality"], result["real"]["high_quality"]):
        assert share == pytest.approx(1 - math.exp(-4.5), abs=0.004)


TINY = ("--images", 64, "--progress", "plain")


@pytest.mark.slow
def test_stacked_mnist_is_one_command(gansmith, digit_dir, monkeypatch):
    monkeypatch.setenv("GANSMITH_THREADS", "1")
    words = ("bench", "stacked-mnist", *TINY, "--samples", 200, "--data-dir", digit_dir, "--out", "stacks")
    code, out, err = gansmith(*words, "--json")
    result = json.loads(out)
    assert code == 0 and "score" in err
    assert {
        "modes",
        "kl",
        "expected_kl",
        "kl_above_expected",
        "images",
        "minutes",
        "seed",
        "classifier_accuracy",
    } <= set(result)
    assert result["kl_above_expected"] == pytest.approx(result["kl"] - result["expected_kl"])
    assert (result["images"], result["samples"], result["seed"]) == (64, 200, 0)
    code, out, _ = gansmith(*words)  # the run is there already: it is only counted
    assert code == 0 and f"{result['kl']:.4f}" in out


@pytest.mark.slow
def test_gaussians_is_one_command(gansmith, monkeypatch):
    monkeypatch.setenv("GANSMITH_THREADS", "1")
    code, out, _ = gansmith("bench", "gaussians", *TINY, "--samples", 100, "--json", "--out", "g")
    result = json.loads(out)
    assert code == 0
    assert (result["gaussian-ring"]["of"], result["gaussian-grid"]["of"]) == (8, 25)
    assert result["gaussian-grid"]["run"] == "g/gaussian-grid"


def verdict(ratio, **gates):
    return {"fd_ratio": ratio, "gates": {name: {"ok": ok} for name, ok in gates.items()}}


def test_objectives_are_ordered_by_their_mean_with_their_spread_over_seeds():
    rows = losses.order(
        {
            "failed": [verdict(None)],
            "partly": [verdict(1.5, classes=True), verdict(None), verdict(None)],
            "worse": [verdict(5.0, classes=True), verdict(9.0, classes=False, copies=None)],
            "better": [verdict(6.5, classes=True), verdict(3.5, classes=True), verdict(5.0, classes=True)],
            "once": [verdict(60.0, classes=True)],
        }
    )
    assert [row["objective"] for row in rows] == ["better", "worse", "once", "partly", "failed"]
    assert [row["trainings_failed"] for row in rows] == [0, 0, 0, 2, 1]
    assert [row["valid"] for row in rows] == [True, False, True, False, False]
    assert (rows[0]["fd_ratio"], rows[0]["seeds"]) == (5.0, 3)
    assert rows[0]["spread"] == pytest.approx(1.5) and rows[1]["spread"] == pytest.approx(math.sqrt(8))
    assert (rows[1]["valid"], rows[1]["failed"], rows[0]["valid"]) == (False, ["classes"], True)
    assert rows[4]["fd_ratio"] is rows[4]["spread"] is rows[2]["spread"] is None


@pytest.mark.parametrize("name", losses.OBJECTIVES_COMPARED)
def test_compared_objectives_differ_in_nothing_but_their_own_choices(name):
    choices = losses.OBJECTIVES_COMPARED[name]
    config, recipe = resolve(losses.RECIPE, arguments=choices), resolve(losses.RECIPE)
    spec = ImageSpec(28, 1, 0)
    G, D = build_networks(config, spec)
    build_techniques(config, D)
    assert {field for field, origin in config.origins.items() if origin == "argument"} == set(choices)
    assert config.batch_size == recipe.batch_size
    assert repr(G) == repr(build_networks(recipe, spec)[0])


@pytest.mark.slow
def test_losses_is_one_command_that_goes_on_where_it_was(gansmith, digit_dir, monkeypatch):
    two = {name: losses.OBJECTIVES_COMPARED[name] for name in ("non-saturating", "wasserstein")}
    monkeypatch.setattr(losses, "OBJECTIVES_COMPARED", two)
    words = ("bench", "losses", "--images", 256, "--seeds", 1, "--quick", "--data-dir", digit_dir, "--json")
    code, out, _ = gansmith(*words)
    first = json.loads(out)["objectives"]
    assert code == 0 and {row["objective"] for row in first} == set(two)
    code, out, err = gansmith(*words)
    assert code == 0 and json.loads(out)["objectives"] == first


@pytest.mark.parametrize("name", ["stacked-mnist", "gaussians"])
def test_nothing_to_count_is_refused(gansmith, name):
    assert gansmith("bench", name, "--samples", 10**11)[0] == 2
    code, _, err = gansmith("bench", name, "--samples", 0)
    assert code == 2 and "samples is 0" in err
