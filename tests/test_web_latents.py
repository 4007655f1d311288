"""The explorer's sliders and drawings: what the worker answers."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from test_sampling import build_model

import gansmith as gs
from gansmith import inversion
from gansmith.errors import ConfigError, DataError
from gansmith.sampling import draw_inputs, generate
from gansmith.web import latents


def test_sliders_at_zero_change_nothing_and_others_move_along_directions():
    model = build_model(clusters_per_class=3)
    z, y = draw_inputs(model, seed=3, count=1, labels=[4])
    still = latents.move(model, (z, y), [0.0] * 10, 1.0, owner=model.network)
    assert torch.equal(still["images"], generate(model, z, y))
    assert len(still["shares"]) == 8 and still["shares"] == sorted(still["shares"], reverse=True)
    moved = latents.move(model, (z, y), [0.0, 2.0], 1.0, owner=model.network)
    along = z + 2 * gs.directions(model, 8, label=4).vectors[1]
    torch.testing.assert_close(torch.tensor([moved["latents"]]), along)
    assert torch.equal(moved["images"], generate(model, along, y))
    half = latents.move(model, (z, y), [], 0.5, owner=model.network)
    assert torch.equal(half["images"], generate(model, z / 2, y))


def test_latents_that_were_found_move_too_and_others_are_refused():
    model = build_model(clusters_per_class=3)
    found = gs.invert(model, gs.sample(model, 1, seed=2).images)
    exported, start = latents.given(model, found.latents[0].tolist(), int(found.labels[0]))
    again = latents.move(exported, start, [], 1.0, owner=model.network)
    np.testing.assert_array_equal(again["images"].permute(0, 2, 3, 1).numpy(), found.images)
    for wrong in ([0.0] * 8, [0.0] * 8 + [float("inf")], [1e6] * 9):
        with pytest.raises(ConfigError, match="give 9, each of at most 10,000"):
            latents.given(model, wrong, 0)


def test_a_picture_is_projected_with_its_label(monkeypatch):
    monkeypatch.setattr(inversion, "SAMPLES", 256)
    model = build_model()
    file = io.BytesIO()
    Image.fromarray(gs.sample(model, 1, seed=2, labels=[6]).images[0, ..., 0]).save(file, "PNG")
    request = {"picture": base64.b64encode(file.getvalue()).decode(), "label": 6}
    found = latents.invert(model, None, request)
    assert found["images"].shape == (2, 1, 28, 28) and found["label"] == 6 and found["name"] == "6"
    assert 0 <= found["pixel_error"] <= found["sample_error"] and found["realness"] is None
    unreadable = base64.b64encode(b"no picture").decode()
    for picture, why in (("%%", "not in base 64"), ("é", "not in base 64"), (unreadable, "cannot be read")):
        with pytest.raises(DataError, match=why):
            latents.invert(model, None, request | {"picture": picture})
