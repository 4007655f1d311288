"""What a run trains on: images shown, images held out, class ids, and what the data changed of the choices."""

import numpy as np
import pytest
import torch
from conftest import write_set

import gansmith as gs
from gansmith.config import resolve
from gansmith.data import images, on_disk
from gansmith.data.embedded import embedded_mnist
from gansmith.data.images import Images, to_float
from gansmith.data.on_disk import open_array
from gansmith.errors import ConfigError, DataError, RunError
from gansmith.recipes import LONG_IN_COLOR
from gansmith.training import inputs
from gansmith.training.batches import Batches
from gansmith.training.inputs import fit_data, fit_to_length, load_training_data


def test_labels_get_subclusters_where_there_are_images_enough(subclustered):
    config, data = load_training_data(subclustered)
    assert config.clusters_per_class == 5 and data.conditioning.codes.shape[0] == len(data.conditioning) == 50
    assert torch.equal(data.y // 5, data.train.labels)
    assert not any("clusters" in note for note in data.notices)
    shares = data.conditioning.frequencies.view(10, 5).sum(1)
    torch.testing.assert_close(shares, data.train.class_frequencies)
    few, data = load_training_data(subclustered.replace(limit_images=200))
    assert few.clusters_per_class == 1
    assert (
        data.notices[0]
        == "clusters_per_class is 1, not 5: each cluster needs at least 24 images, and the rarest class has 19"
    )


def test_only_few_images_are_shifted(tiny, monkeypatch):
    config = tiny(augment="auto")
    assert load_training_data(config)[0].augment == "shifts"
    noise = torch.randint(256, (400, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert load_training_data(config, Images(noise, None))[0].augment == "flips"
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    assert load_training_data(config)[0].augment == "none"
    assert load_training_data(config.replace(augment="shifts"))[0].augment == "shifts"


def test_many_images_in_color_change_what_the_recipe_sets_and_nothing_that_was_asked_for(tiny, monkeypatch):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    colors, grey = Images(noise, None), Images(noise[:, :1], None)
    assert load_training_data(tiny(), colors)[0].d_steps == 2
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    config, data = load_training_data(tiny(), colors)
    assert (config.d_steps, config.d_loss_target, config.g_class_loss) == (1, 0.8, 0.03)
    assert (config.d_rotation_loss, config.g_rotation_loss) == (1.0, 0.2)
    assert load_training_data(tiny(d_rotation_loss=0.5), colors)[0].d_rotation_loss == 0.5
    assert load_training_data(tiny(network="mlp"), colors)[0].d_rotation_loss == 0.0  # its D cannot name turns
    labelled = Images(colors.pixels, torch.arange(400) % 4)
    assert load_training_data(tiny(), labelled)[0].d_rotation_loss == 0.0
    assert load_training_data(tiny(), labelled)[0].g_class_loss == 0.1
    assert "d_steps is 1, not 2: the images are in color" in data.notices
    assert load_training_data(config, colors)[0] == config  # as when the run is resumed
    asked = load_training_data(tiny(d_steps=2, d_loss_target=1.1, g_class_loss=0.0), labelled)[0]
    assert (asked.d_steps, asked.d_loss_target, asked.g_class_loss) == (2, 1.1, 0.0)
    assert load_training_data(tiny(d_class_loss=0.0), labelled)[0].g_class_loss == 0.03
    idle = load_training_data(tiny(r1_gamma=0.0, r2_gamma=0.0), labelled)[0]
    assert idle.d_loss_target == tiny().d_loss_target and idle.d_steps == 1
    assert load_training_data(tiny("default-unlabelled", d_rotation_loss=0.0), colors)[0].g_rotation_loss == 0.0
    without = load_training_data(tiny(), grey)[0]
    assert (without.d_steps, without.d_rotation_loss) == (2, 0.0)
    assert load_training_data(tiny("r3gan"), colors)[0].d_steps == tiny("r3gan").d_steps


def test_many_unlabelled_images_in_color_that_look_the_same_in_a_mirror_are_shown_mirrored_too(
    tiny, monkeypatch, tmp_path
):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    colors = Images(noise, None)
    assert not load_training_data(tiny(), colors)[0].mirror
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    config, data = load_training_data(tiny(use_all_training_images=True), colors)
    assert config.mirror and any(note.startswith("mirror is True, not False: ") for note in data.notices)
    assert len(data.train) == 400 and len(data.y) == len(data.shown) == 800
    torch.testing.assert_close(data.shown.pixels[400:], noise.flip(3), rtol=0, atol=0)
    batches = Batches(config, data, torch.device("cpu"))
    shown = torch.cat([batches.at(seen).real for seen in range(0, 800, config.batch_size)])
    assert len(shown) == 800 and len(shown.flatten(1).unique(dim=0)) == 800  # each once in an epoch
    lopsided = Images(torch.where(torch.arange(16) < 8, noise // 2, noise), None)
    labelled, grey = Images(noise, torch.arange(400) % 4), Images(noise[:, :1], None)
    for other in (lopsided, labelled, grey):
        assert not load_training_data(tiny(use_all_training_images=True), other)[0].mirror
    assert not load_training_data(tiny(use_all_training_images=True, mirror=False), colors)[0].mirror
    config, data = load_training_data(tiny(mirror=True), labelled)
    assert (data.shown.labels == data.y // data.conditioning.ids_per_class).all()
    assert data.conditioning.frequencies.sum().item() == pytest.approx(1)
    np.save(tmp_path / "colors.npy", noise.permute(0, 2, 3, 1).numpy())
    stored = Images(open_array(tmp_path / "colors.npy"))
    monkeypatch.setattr(on_disk, "COPIED_BYTES", 0)
    assert not load_training_data(tiny(use_all_training_images=True), stored)[0].mirror
    with pytest.raises(ConfigError, match="mirror needs images in memory"):
        load_training_data(tiny(use_all_training_images=True, mirror=True), stored)


def test_soap_trains_on_many_grey_images_and_adam_on_others(tiny, monkeypatch):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    colors, grey = Images(noise, None), Images(noise[:, :1], None)

    def optimizers(images, **choices):
        config, data = load_training_data(tiny(**choices), images)
        return config.g_optimizer, config.d_optimizer, [note for note in data.notices if "optimizer" in note]

    few = "g_optimizer and d_optimizer are adam, not soap: the images are few"
    assert optimizers(grey) == ("adam", "adam", [few])
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    assert optimizers(grey) == ("soap", "soap", [])
    in_color = "g_optimizer and d_optimizer are adam, not soap: the images are in color"
    assert optimizers(colors) == ("adam", "adam", [in_color])
    one = "g_optimizer is adam, not soap: the images are in color"
    assert optimizers(colors, d_optimizer="soap") == ("adam", "soap", [one])
    config = load_training_data(tiny(), colors)[0]
    assert load_training_data(config, colors)[0] == config  # as when the run is resumed
    assert load_training_data(tiny("mlp-small"), grey)[0].d_optimizer == "adam"


def test_long_runs_on_many_images_in_color_take_wider_networks_unless_others_were_asked_for(monkeypatch):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    colors, grey = Images(noise, None), Images(noise[:, :1], None)
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)

    def fitted(data, recipe="default", conditioning="labels", **choices):
        config = fit_to_length(resolve(recipe, arguments={"conditioning": conditioning, **choices}), data)
        return config.g_width, config.g_lr, config.d_width, config.d_lr

    long, narrow = {"images": inputs.LONG_RUN}, (64, 4.5e-3, 64, 3e-3)
    assert fitted(colors, **long) == (128, 3e-3, 128, 2e-3)
    assert fitted(colors, images=inputs.LONG_RUN - 1) == fitted(grey, **long) == narrow
    assert fitted(colors, **long, d_width=64) == fitted(colors, **long, g_lr=4.5e-3) == narrow
    assert fitted(colors, **long, d_width=32) == (64, 4.5e-3, 32, 3e-3)
    assert fitted(colors, conditioning="clusters", **long) == narrow
    assert fitted(colors, "mlp-small", **long) == (256, 2e-4, 256, 2e-4)


def test_long_runs_in_color_show_mirror_images_by_class_where_images_look_the_same_in_a_mirror(monkeypatch):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    long = {"images": inputs.LONG_RUN, "conditioning": "labels"}
    turned = noise.clone()
    turned[..., 8:] //= 2  # its left is brighter than its right

    def fitted(pixels, **choices):
        config = fit_to_length(resolve("default", arguments={**long, **choices}), Images(pixels, None))
        return config.mirror, config.clusters_per_class, config.d_width

    assert fitted(noise) == (True, 1, 128) and fitted(turned) == (False, 200, 128)
    assert fitted(noise, clusters_per_class=4) == (False, 4, 128)
    assert fitted(noise, mirror=False) == (False, 200, 128)  # asked for
    assert fitted(noise, d_width=32) == (False, 200, 32)
    assert fitted(noise, images=inputs.LONG_RUN - 1) == (False, 200, 64)
    loaded, _ = load_training_data(resolve("default", arguments=long), Images(noise, torch.arange(400) % 4))
    assert loaded.clusters_per_class == 3 and fit_to_length(loaded, Images(noise, None)).clusters_per_class == 1
    few = {**long, "clusters_per_class": 2, "g_width": 8, "d_width": 8}
    config, data = load_training_data(resolve("default", arguments=few), Images(noise, torch.arange(400) % 4))
    assert len(data.conditioning) == 8 and data.mirrored is None and data.scorer is not None
    again = fit_data(config.replace(mirror=True, clusters_per_class=1), data)
    assert len(again.conditioning) == 4 and len(again.shown) == len(again.y) == 2 * len(data.train)
    assert again.scorer is data.scorer


@pytest.mark.slow
def test_a_long_run_goes_on_by_the_same_command_with_its_width(tmp_path, monkeypatch):
    noise = torch.randint(256, (400, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr(inputs, "FEW_IMAGES", 10)
    monkeypatch.setattr(inputs, "LONG_RUN", 64)
    monkeypatch.setitem(LONG_IN_COLOR, "default", dict(g_width=24, g_lr=3e-3, d_width=16, d_lr=2e-3))
    data = Images(noise, torch.arange(400) % 4)
    choices = dict(data=data, out=tmp_path / "run", clusters_per_class=1, batch_size=16, progress="none")
    choices |= dict(threads=1, use_all_training_images=True)  # so that nothing is scored
    run = gs.train(images=64, **choices)
    assert (run.config.g_width, run.config.d_width) == (24, 16)
    monkeypatch.setattr(inputs, "LONG_RUN", 10**9)  # the length may be another by now
    again = gs.train(images=128, **choices)
    assert (again.config.d_width, again.images_seen) == (16, 128)
    with pytest.raises(RunError, match="d_width 16 -> 64"):
        gs.train(images=192, d_width=64, **choices)


def test_without_labels_the_default_takes_clusters(tiny, tmp_path, digits):
    folder = write_set(tmp_path / "none", digits[0], None)
    config, data = load_training_data(tiny(data_dir=str(folder)))
    assert config.conditioning == "clusters"
    assert len(data.conditioning) == 4 and data.conditioning.frequencies.sum().item() == pytest.approx(1)
    with pytest.raises(ConfigError, match="has no labels"):
        load_training_data(tiny(data_dir=str(folder), conditioning="labels"))


def test_a_number_of_clusters_that_the_data_does_not_allow_is_reported_with_both_values(tiny):
    config, data = load_training_data(tiny("default-unlabelled", clusters=2000))
    assert config.clusters == 15
    assert data.notices[0] == "clusters is 15, not 2000: each cluster needs at least 24 of the 360 images"
    assert not any(
        "clusters" in note for note in load_training_data(tiny("default-unlabelled", clusters=15))[1].notices
    )


def test_all_training_images_hold_none_out(tiny):
    data = load_training_data(tiny(use_all_training_images=True))[1]
    assert len(data.train) == 400 and data.validation is None
    held_out = load_training_data(tiny())[1]
    assert (len(held_out.train), len(held_out.validation)) == (360, 40)
    assert held_out.data_sha256 == data.data_sha256  # of the whole part, however it is split


def test_only_chosen_images_are_shown(tiny):
    data = load_training_data(tiny(classes="3,7", limit_images=20))[1]
    assert len(data.train) == 20 and set(data.train.labels.tolist()) == {3, 7}
    assert len(data.validation) == 40
    with pytest.raises(ConfigError, match="labels 0 to 9 but no 12"):
        load_training_data(tiny(classes="12-15"))
    with pytest.raises(ConfigError, match="labels are 'cat'"):
        load_training_data(tiny(classes="cat"))


def test_classes_cannot_be_chosen_without_labels(tiny, tmp_path, digits):
    folder = write_set(tmp_path / "none", digits[0], None)
    with pytest.raises(ConfigError, match="has no labels, so no classes can be chosen; omit --classes"):
        load_training_data(tiny(data_dir=str(folder), classes="3"))


def test_an_unconditional_run_gets_no_labels(tiny):
    data = load_training_data(tiny("mlp-small"))[1]
    assert data.train.labels is None and data.validation.labels is None
    assert torch.equal(data.y, torch.zeros(360, dtype=torch.int64)) and len(data.conditioning) == 1


def test_images_that_cannot_be_trained_on_are_refused(tiny, tmp_path):
    write_set(tmp_path / "same", np.full((60, 28, 28), 7, np.uint8), np.arange(60) % 3)
    with pytest.raises(DataError, match="are the same, so there is nothing to learn"):
        load_training_data(tiny("mlp-small", data_dir=str(tmp_path / "same")))
    wide = Images(torch.randint(0, 256, (60, 1, 28, 30), dtype=torch.uint8), None, "wide", "memory")
    with pytest.raises(DataError, match="28 x 30 pixels; square ones are needed"):
        load_training_data(tiny("mlp-small"), wide)
    write_set(tmp_path / "one", np.arange(784, dtype=np.uint8).reshape(1, 28, 28), None)
    with pytest.raises(DataError, match=r"too few images to train on \(1\); give at least 2"):
        load_training_data(tiny("mlp-small", data_dir=str(tmp_path / "one")))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"network": "dcgan"}, "gradient penalty per image .* batch normalisation"),
        ({"network": "compcat"}, "did you mean 'compact'"),
        ({"objective": "hinges"}, "no objective"),
        ({"data": "minst"}, "did you mean 'mnist'"),
        ({"r1_gamma": 0.0, "r2_gamma": 0.0, "d_loss_target": 1.0}, "no effect without a gradient penalty"),
    ],
)
def test_impossible_choices_are_refused_before_anything_is_written(tiny, tmp_path, flags, words):
    with pytest.raises(ConfigError, match=words):
        load_training_data(tiny(**flags))
    assert list(tmp_path.iterdir()) == []


def test_moments_of_pixels_weigh_each_class_as_often_as_it_is_drawn(tiny):
    config, data = load_training_data(tiny("mlp-small", conditioning="labels"))
    pixels = to_float(data.train.pixels).double()
    by_class = torch.stack(
        [torch.stack([pixels[data.y == k].mean(), pixels[data.y == k].square().mean()]) for k in range(10)]
    )
    expected = (data.conditioning.frequencies[:, None] * by_class).sum(0)
    torch.testing.assert_close(data.pixel_moments, expected[None].float())


def test_pixel_moments_of_a_large_set_are_taken_over_some_of_its_images(tiny, digits, monkeypatch):
    config, data = load_training_data(tiny())
    whole = data.pixel_moments
    monkeypatch.setattr(images, "LARGE_BYTES", 10)
    monkeypatch.setattr(images, "SOME", 200)
    some = load_training_data(config)[1].pixel_moments
    assert not torch.equal(some, whole)
    torch.testing.assert_close(some, whole, rtol=0, atol=0.03)  # standard error of 200 of 360 digits: .005


def test_a_target_that_guessing_is_below_is_dropped_where_only_the_recipe_asked_for_it(tiny):
    config, data = load_training_data(tiny(objective="least-squares"))
    assert config.d_loss_target == 0
    assert (
        "d_loss_target is 0.0, not 1.1: under the least-squares objective D's loss is 0.25 where it guesses"
        in data.notices
    )
    assert load_training_data(tiny())[0].d_loss_target == 1.1


def test_what_trains_without_labels_decides_nothing_by_them():
    """Each class is the other one's mirror image: only labels tell that the images have a direction."""
    noise = torch.randint(256, (1000, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise[..., 8:] //= 2
    labels = torch.arange(1000) % 2
    pixels = torch.where(labels.view(-1, 1, 1, 1) == 0, noise, noise.flip(-1))
    with_labels, without = Images(pixels, labels, name="b-and-d"), Images(pixels, name="b-and-d")
    few = {"images": 64, "g_width": 8, "d_width": 8, "clusters": 4, "augment": "auto"}
    for recipe, augment in (("default-unlabelled", "flips"), ("default", "shifts")):
        config = resolve(recipe, arguments={**few, "clusters_per_class": 1})
        assert load_training_data(config, with_labels)[0].augment == augment
    config = resolve("default-unlabelled", arguments=few)
    assert load_training_data(config, with_labels)[0] == load_training_data(config, without)[0]


def test_early_stopping_needs_images_that_are_held_out(tiny):
    fifteen = Images(torch.randint(256, (15, 1, 28, 28), dtype=torch.uint8))
    with pytest.raises(ConfigError, match="of 1[45] images too few are held out"):
        load_training_data(resolve("mlp-small", arguments={"early_stopping": 3}), fifteen)


def test_the_class_that_limits_sub_clusters_is_named():
    whole = embedded_mnist()
    of_each = [torch.nonzero(whole.labels == label).flatten()[: 60 if label == 4 else 300] for label in range(10)]
    config, data = load_training_data(resolve("default", arguments={"images": 64}), whole.take(torch.cat(of_each)))
    rarest = int(data.train.labels.bincount().min())
    assert config.clusters_per_class == rarest // 24
    assert any(f"at least 24 images, and the rarest class has {rarest:,}" in notice for notice in data.notices)
