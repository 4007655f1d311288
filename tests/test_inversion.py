"""A picture that the generator can draw is found again."""

import numpy as np
import pytest
import torch
from conftest import DATA_DIR, flags
from PIL import Image
from test_sampling import build_model
from torch import nn

import gansmith as gs
from gansmith import inversion
from gansmith.conditioning import Conditioning
from gansmith.config import Config
from gansmith.data.images import ImageSpec, to_float
from gansmith.errors import ConfigError, GansmithError
from gansmith.sampling import Model, draw_inputs, generate
from gansmith.signature import as_exported
from gansmith.training.step import has_batch_norm


class Curved(nn.Module):
    """Images of 8 pixels that bend in four latents, around a mean of each of two classes."""

    def __init__(self):
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4, 64, generator=source) / 2)
        self.means = nn.Parameter(torch.randn(2, 64, generator=source) / 2)

    def forward(self, z, y):
        return (torch.sin(z) @ self.weight + 0.1 * z @ self.weight.flip(0) + self.means[y]).tanh().view(-1, 1, 8, 8)


def curved(distribution="normal"):
    config = Config(latent_dim=4, latent_distribution=distribution, conditioning="labels")
    half = torch.full((2,), 0.5, dtype=torch.float64)
    return Model(Curved().eval(), config, ImageSpec(8, 1, 2), Conditioning(half, has_labels=True), ("ring", "bar"))


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_the_latents_of_a_sample_are_found_again(distribution):
    model = curved(distribution)
    z, y = draw_inputs(model, seed=77, count=6)
    pictures = generate(model, z, y)
    found = gs.invert(model, pictures.permute(0, 2, 3, 1).numpy())
    assert np.median(found.errors) < 1 < np.median(found.sample_errors)
    assert (found.labels == y.numpy()).all() and found.class_name(0) in ("ring", "bar")
    np.testing.assert_allclose(np.median(np.abs(found.latents - z.numpy())), 0, atol=0.02)
    np.testing.assert_array_equal(found.images, gs.sample(model, latents=found.latents, labels=y.tolist()).images)
    expected = (found.images.astype(float) - found.pictures).reshape(6, -1)
    np.testing.assert_allclose(found.errors, np.sqrt((expected**2).mean(1)))


def test_labels_restrict_the_search():
    model = curved()
    z, y = draw_inputs(model, seed=5, count=1, labels=[0])
    pictures = generate(model, z, y)[:, 0].numpy()
    right, wrong = (gs.invert(model, pictures, labels=[name]) for name in ("ring", "bar"))
    assert right.labels.tolist() == [0] and wrong.labels.tolist() == [1]
    assert right.errors[0] < 1 < wrong.errors[0]
    with pytest.raises(ConfigError, match="no label 2"):
        gs.invert(model, pictures, labels=[2])


def test_no_result_is_worse_than_the_nearest_sample(monkeypatch):
    monkeypatch.setattr(inversion, "RATE", 1e4)  # thrown far away in the first step
    monkeypatch.setattr(inversion, "STEPS", 1)
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
    found = gs.invert(curved(), noise)
    with pytest.raises(GansmithError, match="there is no folder .*make it first"):
        found.save("no/such/pair.png")
    with pytest.raises(GansmithError, match="does not end in one of .png, .npz, .npy"):
        found.save("pair.gif")
    assert (found.errors <= found.sample_errors + 0.5).all()


def test_latents_name_the_subcluster_too(monkeypatch):
    monkeypatch.setattr(inversion, "STEPS", 5)
    model = build_model(clusters_per_class=3)
    found = gs.invert(model, gs.sample(model, 3, seed=4).images)
    assert found.latents.shape == (3, 9) and found.realness is None
    again = gs.sample(model, latents=found.latents, labels=found.labels.tolist())
    np.testing.assert_array_equal(again.images, found.images)
    assert (found.errors <= found.sample_errors + 0.5).all()  # rounding to grey levels apart


@pytest.mark.slow
def test_realness_is_the_share_of_samples_with_a_lower_logit(tiny, run_training):
    run = run_training(tiny("dcgan-sgd", conditioning="none", images=64, minibatch_stddev=0))
    found = gs.invert(run.directory, gs.sample(run.directory, 2, seed=9).images)
    model = as_exported(gs.load(run.directory))
    z, y = draw_inputs(model, seed=0, count=inversion.SAMPLES)
    count, beside = inversion.COMPARED, inversion.COMPANIONS
    drawn = generate(model, z[:count], y[:count])
    source = inversion.find_source(str(run.directory))
    D = inversion.build_networks(model.config, model.spec)[1].eval()
    D.load_state_dict(source.discriminator)
    for layer in D.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            layer.train()
    with torch.no_grad():  # batch normalisation: each image in a batch with the same others
        several = [D(to_float(drawn[[0, *rows]]), y[[0, *rows]])[0] for rows in (range(1, 16), range(16, 31))]
        assert has_batch_norm(D.modules()) and several[0] != several[1]
        logits = [D(to_float(torch.cat([image[None], drawn[:beside]])), y[: 1 + beside])[0] for image in drawn]
        picture = torch.from_numpy(found.pictures[0]).permute(2, 0, 1)[None]
        again = torch.from_numpy(found.images[0]).permute(2, 0, 1)[None]
        own = [D(to_float(torch.cat([image, drawn[:beside]])), y[: 1 + beside])[0] for image in (picture, again)]
    for k, mine in enumerate(own):
        assert found.realness[0, k] == pytest.approx(sum(logit < mine for logit in logits) / count, abs=2 / count)


@pytest.mark.slow
def test_on_the_command_line(gansmith, digit_dir, monkeypatch):
    monkeypatch.setattr(inversion, "SAMPLES", 512)
    gansmith("train", "--data-dir", digit_dir, "--out", "run", *flags(images=64, clusters_per_class=1))
    ink = Image.new("L", (120, 90), 255)
    ink.paste(0, (50, 20, 60, 70))
    ink.save("one.png")
    for out in ("pair.png", "all.npz", "z.npy"):
        code, said, _ = gansmith("invert", "run", "one.png", "one.png", "--out", out, "--labels", "1,7")
        assert code == 0 and "of 255 grey levels" in said and "of samples" in said
    with np.load("all.npz", allow_pickle=False) as stored:
        assert stored["images"].shape == (2, 28, 28, 1) and set(stored["labels"]) <= {1, 7}
        assert np.array_equal(np.load("z.npy"), stored["latents"])
    with Image.open("pair.png") as pair:
        assert pair.width == pair.height  # two rows of a picture and its reconstruction
    for words, why in [
        (("run", "missing.png"), "there is no picture 'missing.png'"),
        (("run", "one.png", "--out", "z.txt"), "does not end in one of"),
        (("run", "pair.png", "one.png", "--out", "one.png"), "one.png is one of the pictures; give another file"),
        (("run", "one.png", "--labels", "12,3"), "there is no label 12"),
        (("run", "one.png", "--seed", "-1"), "a seed must be"),
    ]:
        code, _, error = gansmith("invert", *words)
        assert code == 2 and why in error, error


def test_a_generator_without_gradients_is_refused():
    class Foreign(nn.Module):
        def forward(self, z, y):
            return z[:, :1, None, None].expand(-1, 1, 8, 8)

    model = Model(Foreign(), Config(latent_dim=4), ImageSpec(8, 1, 0), build_model(conditioning="none").conditioning)
    with pytest.raises(ConfigError, match="gives no gradients"):
        gs.invert(model, np.zeros((8, 8), np.uint8))


@pytest.mark.slow
def test_held_out_digits_come_within_a_third_of_the_nearest_of_many_samples(gansmith):
    if not (DATA_DIR / "mnist").is_dir():
        pytest.skip("no whole MNIST here")
    gansmith("train", "--data", "mnist", "--data-dir", DATA_DIR / "mnist", "--images", "150000", "--out", "run")
    test = gs.load_data("mnist", data_dir=DATA_DIR / "mnist", split="test")
    pictures = test.pixels[::100].permute(0, 2, 3, 1).numpy()
    found = gs.invert("run", pictures)
    drawn = torch.from_numpy(gs.sample("run", 10_000, seed=1).images).flatten(1).float()
    nearest = torch.cdist(torch.from_numpy(pictures).flatten(1).float(), drawn).min(1).values / 28
    assert np.median(found.errors) < np.median(nearest) / 3
