"""The protocol on images with a known defect: real ones pass, each defect is detected, and more of it scores worse.

The embedded digits are split into training, validation, test and fresh images; the slow tests do the same with whole
data sets, where GANSMITH_DATA names a folder that has them.
"""

from functools import cache

import controls
import pytest
import torch
from conftest import DATA_DIR

from gansmith.data import load_data, load_split
from gansmith.data.images import Images
from gansmith.metrics.features import load_evaluators
from gansmith.metrics.gates import apply_gates
from gansmith.metrics.memorisation import memorisation
from gansmith.metrics.pixels import pixel_statistics
from gansmith.metrics.protocol import Real, evaluate_samples

DEFECTS = {  # control -> strength, the gate that must fail
    "missing-class": (1.0, "classes"),
    "repeated": (50, "coverage"),
    "prototypes": (0.5, "diversity"),
    "blur": (0.7, "pixels"),
    "salt": (0.01, "pixels"),
    "shift": (1, "pixels"),
    "lift": (8, "pixels"),
    "inverted": (0.2, "pixels"),
}


@cache
def embedded() -> tuple[Images, Real]:
    """1,000 digits as samples and the real images they are compared with."""
    images = load_data("mnist").shuffled(5_000)
    fresh, validation, test = (images.take(torch.arange(start, start + 1_000)) for start in (0, 1_000, 2_000))
    return fresh, Real(train=images.take(torch.arange(3_000, 5_000)), validation=validation, test=test)


@cache
def whole(name: str) -> tuple[Images, Real]:
    """Half of the validation images as samples, compared with the other half and the official test images."""
    train, validation, test = (
        load_split(name, part, data_dir=DATA_DIR / name) for part in ("train", "validation", "test")
    )
    mixed = validation.shuffled(len(validation))
    half = len(mixed) // 2
    real = Real(train=train, validation=mixed.take(torch.arange(half, len(mixed))), test=test)
    return mixed.take(torch.arange(half)), real


def spoil(case: tuple[Images, Real], control: str, strength: float, *, quick: bool = True):
    fresh, real = case
    return evaluate_samples(
        controls.CONTROLS[control][0](fresh, real.train, strength), real, load_evaluators(real.train), quick=quick
    )


def failed(verdict) -> set[str]:
    return {name for name, gate in verdict.gates.items() if gate["ok"] is False}


def copies_are_detected(case: tuple[Images, Real], control: str, strength: float) -> bool:
    """Return whether the memorisation gate fails, without the rest of the full tier."""
    fresh, real = case
    flat = [
        images.pixels.flatten(1).numpy() / 255.0
        for images in (real.train, real.validation, controls.CONTROLS[control][0](fresh, real.train, strength))
    ]
    return gate_fails("memorisation", memorisation(*flat))


def gate_fails(name: str, figures: dict[str, float]) -> bool:
    return apply_gates({key: {"value": value, "real": None} for key, value in figures.items()})[name]["ok"] is False


@pytest.mark.slow
def test_new_real_images_pass_and_score_one():
    verdict = spoil(embedded(), "untouched", 0)
    assert failed(verdict) == set()
    assert verdict.fd_ratio == pytest.approx(1, abs=0.15)
    assert not copies_are_detected(embedded(), "untouched", 0)


def test_copies_score_one_and_fail_memorisation():
    assert spoil(embedded(), "copies", 1.0).fd_ratio == pytest.approx(1, abs=0.15)
    assert copies_are_detected(embedded(), "copies", 1.0)
    assert copies_are_detected(embedded(), "copies", 0.05)
    assert copies_are_detected(embedded(), "blurred-copies", 0.05)


@pytest.mark.parametrize("control", [name for name, (_, gate) in DEFECTS.items() if gate == "pixels"])
def test_spoilt_pixels_fail_the_gate_of_pixels(control):
    fresh, real = embedded()
    samples = controls.CONTROLS[control][0](fresh, real.train, DEFECTS[control][0])
    assert gate_fails("pixels", pixel_statistics(real.test.pixels.numpy(), samples.pixels.numpy()))


@pytest.mark.parametrize("control", [name for name, (_, gate) in DEFECTS.items() if gate != "pixels"])
def test_a_lack_of_variety_fails_its_gate(control):
    strength, gate = DEFECTS[control]
    assert gate in failed(spoil(embedded(), control, strength))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
class TestWholeSets:
    @pytest.fixture(autouse=True)
    def _needs_data(self, name):
        if not (DATA_DIR / name).is_dir():
            pytest.skip(f"GANSMITH_DATA names no folder with {name}")

    def test_new_real_images_pass_and_score_one(self, name):
        verdict = spoil(whole(name), "untouched", 0, quick=False)
        assert failed(verdict) == set()
        assert verdict.fd_ratio == pytest.approx(1, abs=0.15)

    def test_copies_fail_memorisation(self, name):
        for control in ("copies", "blurred-copies"):
            for strength in controls.CONTROLS[control][1]:
                assert copies_are_detected(whole(name), control, strength), (control, strength)

    @pytest.mark.parametrize("control", DEFECTS)
    def test_more_of_a_defect_scores_worse_or_fails(self, name, control):
        verdicts = [spoil(whole(name), control, strength) for strength in controls.CONTROLS[control][1]]
        ratios = [verdict.fd_ratio for verdict in verdicts]
        assert DEFECTS[control][1] in failed(verdicts[-1]) or ratios == sorted(ratios)
