"""Training of an evaluator on demand."""

import numpy as np
import torch

from gansmith.data.images import Images, split
from gansmith.metrics.evaluator_training import accuracy, load_or_train_evaluator


def test_an_evaluator_for_other_images_is_trained_once_and_kept(tmp_path, monkeypatch, caplog):
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    pixels = torch.randint(0, 120, (600, 1, 12, 12), generator=draw, dtype=torch.uint8)
    for label in range(3):  # each class has its own bright rows
        pixels[labels == label, :, 4 * label : 4 * label + 2] += 100
    train, validation = split(Images(pixels, labels, name="stripes"))
    monkeypatch.setattr("gansmith.metrics.evaluator_training.ON_DEMAND", 20_000)
    path = tmp_path / "cache" / "kept.safetensors"
    network = load_or_train_evaluator(train, validation, path)
    assert accuracy(network, validation) > 0.95 and 0.5 <= network.temperature.item() <= 4.0
    again = load_or_train_evaluator(train, validation, path)
    assert len(caplog.records) == 1 and again.name == "trained-kept"
    np.testing.assert_array_equal(again.features(train.pixels[:5]), network.features(train.pixels[:5]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    mended = load_or_train_evaluator(train, validation, path)
    assert len(caplog.records) == 3 and "damaged" in caplog.records[1].message and path.read_bytes() == whole
    np.testing.assert_array_equal(mended.features(train.pixels[:5]), network.features(train.pixels[:5]))
