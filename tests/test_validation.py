"""The validation FD ratio during training."""

import pytest
import torch

from gansmith.data import load_data
from gansmith.data.images import split
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
