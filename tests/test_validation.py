"""The validation FD ratio during training."""

from dataclasses import replace

import pytest
import torch

from gansmith.data import load_data
from gansmith.data.images import Images, split
from gansmith.metrics import evaluator_training
from gansmith.metrics.protocol import Real, evaluate_samples
from gansmith.metrics.validation import ValidationScorer


def test_the_validation_fd_ratio_ranks_real_blurred_and_noise():
    train, validation = split(load_data("mnist"))
    scorer = ValidationScorer(train, validation)
    assert scorer.count == 2000
    real = train.pixels[torch.randperm(4500, generator=torch.Generator().manual_seed(1))[:2000]]
    neighbours = torch.nn.functional.avg_pool2d(real.float(), 3, stride=1, padding=1).to(torch.uint8)
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = [scorer.score(samples)["validation_fd_ratio"] for samples in (real, neighbours, noise)]
    assert scores[0] == pytest.approx(1.0, abs=0.25)
    assert scores[0] * 2 < scores[1] < scores[2]


@pytest.fixture
def own_set(monkeypatch):
    """The digits under another name, for which no evaluator ships: 3,000 for training, 1,000 of each other split."""
    monkeypatch.setattr(evaluator_training, "ON_DEMAND", 1)
    digits = replace(load_data("mnist"), name="mine")
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(7))
    return Real(*(digits.take(order[a:b]) for a, b in ((0, 3000), (3000, 4000), (4000, 5000))))


@pytest.mark.slow
def test_the_score_in_training_agrees_with_the_verdict_on_equally_many_samples(own_set, monkeypatch):
    monkeypatch.setattr(evaluator_training, "MOST_HELD_OUT", 1000)
    monkeypatch.setattr(evaluator_training, "SHARE_HELD_OUT", 3)
    scorer = ValidationScorer(own_set.train, own_set.validation)
    scorer.prepare(0)
    pixels = own_set.train.pixels[:1000].float()
    faults = [pixels * 0.9, torch.nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1)]
    for samples in (fault.to(torch.uint8) for fault in faults):
        verdict = evaluate_samples(Images(samples), own_set, scorer.networks, quick=True)
        found = scorer.score(samples)
        assert found["n"] == verdict.n == 1000 and verdict.fd_ratio > 2
        assert found["validation_fd_ratio"] == pytest.approx(verdict.fd_ratio, rel=1 / 3)


def test_a_run_keeps_its_evaluators_and_training_images_of_the_score_are_new_to_them(own_set):
    scorer = ValidationScorer(own_set.train.without_labels(), own_set.validation, train_split=own_set.train)
    scorer.prepare(0)
    assert list(scorer.networks) == ["random"] and scorer.count == 750 and scorer.cost == 1
    scorer.prepare(1e9)  # the choice is made once
    assert list(scorer.networks) == ["random"]
    again = ValidationScorer(own_set.train, own_set.validation)
    again.prepare(0, names=["trained"])
    assert list(again.networks) == ["trained"] and again.networks["trained"].num_classes == 10
    fit, held_out = evaluator_training.fit_and_held_out(own_set.train)
    learnt = {image.tobytes() for image in fit.pixels.numpy()}
    assert len(held_out) == 750 and not any(image.tobytes() in learnt for image in held_out.pixels.numpy())
    later = ValidationScorer(own_set.train, own_set.validation)
    later.prepare(0)  # what is stored costs nothing
    assert list(later.networks) == ["trained", "random"]
    for planned, found in ((["random"], ["random"]), (["not here"], ["trained", "random"])):
        resumed = ValidationScorer(own_set.train, own_set.validation)
        resumed.prepare(1e9, planned=planned)  # by what it began with, as far as that is here
        assert list(resumed.networks) == found
