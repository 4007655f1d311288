"""Sample k of a seed is one image, whatever is drawn with it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gansmith import sampling
from gansmith.conditioning import Conditioning, conditioned_spec
from gansmith.config import Config, resolve
from gansmith.data.images import ImageSpec, to_uint8
from gansmith.errors import ConfigError, DataError
from gansmith.networks import NETWORKS
from gansmith.networks.layers import Dropout
from gansmith.pictures.grids import grid
from gansmith.sampling import (
    Model,
    arcs,
    class_walk,
    draw_inputs,
    draw_latents,
    folder_names,
    generate,
    latent_walk,
    numpy_latents,
    read_latents,
    sample,
    shape_latents,
    slerp,
    truncate,
)


def build_model(recipe="default", *, channels=1, **choices):
    """Return an untrained generator of ten classes, all equally frequent."""
    base = {"g_width": 8, "d_width": 8, "latent_dim": 8, "conditioning": "labels", "clusters_per_class": 1}
    config = resolve(recipe, arguments={**base, **choices})
    spec = ImageSpec(size=28, channels=channels, num_classes=10 if config.conditioning == "labels" else 0)
    conditioned = conditioned_spec(spec, config)
    G = NETWORKS[config.network](conditioned, config)[0].eval()
    count = max(1, conditioned.num_classes)
    frequencies = torch.full((count,), 1 / count, dtype=torch.float64)
    return Model(G, config, spec, Conditioning(frequencies, config.ids_per_class, spec.num_classes > 0))


@pytest.mark.parametrize("recipe", ["default", "mlp-small", "dcgan-sgd"])
def test_sample_k_is_the_same_image_at_any_count(recipe):
    model = build_model(recipe=recipe, **({} if recipe == "default" else {"conditioning": "none"}))
    images, labels = sample(model, seed=7, count=130)
    for count in (1, 25, 64, 65):
        fewer, fewer_labels = sample(model, seed=7, count=count)
        assert torch.equal(fewer, images[:count]) and torch.equal(fewer_labels, labels[:count])
    assert not torch.equal(sample(model, seed=8, count=130)[0], images)


def test_dropout_while_sampling_is_a_function_of_the_latent():
    model = build_model(recipe="mlp-small", conditioning="none", g_dropout=0.5)
    images, _ = sample(model, seed=7, count=70)
    assert torch.equal(sample(model, seed=7, count=3)[0], images[:3])
    latents = draw_latents(model.config, seed=7, count=2)
    latents[1] = latents[0]
    twins = generate(model, latents, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(twins[0], twins[1]) and torch.equal(twins[0], images[0])
    dropouts = [layer for layer in model.network.modules() if isinstance(layer, Dropout)]
    assert dropouts and all(layer.sources is None for layer in dropouts)
    with torch.no_grad():  # no mask is left behind, and the sampled one is not the identity
        assert not torch.equal(to_uint8(model.network(latents[:1], torch.zeros(1, dtype=torch.int64))), images[:1])


def test_sampled_dropout_drops_its_share_of_each_image():
    layer = Dropout(0.25).eval()
    layer.sources = [torch.Generator().manual_seed(k) for k in range(3)]
    kept = layer(torch.ones(3, 4000))
    torch.testing.assert_close((kept == 0).float().mean(1), torch.full((3,), 0.25), rtol=0, atol=0.03)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])


def test_latents_are_standard_normal_by_default():
    latents = draw_latents(Config(latent_dim=16), seed=0, count=2000)
    assert latents.mean().item() == pytest.approx(0, abs=0.02) and latents.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(draw_latents(Config(latent_dim=16), seed=0, count=3), latents[:3])
    assert not torch.equal(draw_latents(Config(latent_dim=16), seed=1, count=3), latents[:3])
    assert draw_latents(Config(latent_dim=16), seed=0, count=0).shape == (0, 16)


def test_latents_have_the_configs_distribution():
    normal = draw_latents(Config(latent_dim=50), seed=0, count=400)
    sphere = draw_latents(Config(latent_dim=50, latent_distribution="sphere"), seed=0, count=400)
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((400,), math.sqrt(50)))
    torch.testing.assert_close(sphere / sphere[:, :1], normal / normal[:, :1], rtol=1e-3, atol=1e-3)
    uniform = draw_latents(Config(latent_dim=50, latent_distribution="uniform"), seed=0, count=400)
    counts = torch.histc(uniform, bins=4, min=-1, max=1) / uniform.numel()
    torch.testing.assert_close(counts, torch.full((4,), 0.25), rtol=0, atol=0.01)
    assert torch.equal(shape_latents(normal, "normal"), normal)


def test_numpy_latents_are_those_of_the_legacy_generator():
    expected = np.random.RandomState(504).normal(size=(25, 100))
    torch.testing.assert_close(
        numpy_latents(Config(latent_dim=100), seed=504, count=25).double().numpy(), expected, rtol=1e-6, atol=1e-7
    )


def test_latent_files_are_checked(tmp_path):
    path = tmp_path / "z.npy"
    np.save(path, np.ones((3, 8)))
    assert read_latents(path, 8).shape == (3, 8)
    for wrong in (
        np.ones((3, 7)),
        np.ones(8),
        np.full((2, 8), np.nan),
        np.array([["a"] * 8]),
        np.ones((0, 8)),
    ):
        np.save(path, wrong)
        with pytest.raises(DataError, match=str(path)):
            read_latents(path, 8)
    np.save(path, np.array([[object()] * 8]), allow_pickle=True)
    with pytest.raises(DataError, match="object .*plain numbers"):
        read_latents(path, 8)


def test_chunks_are_padded_not_shared():
    model = build_model()
    z, y = draw_latents(Config(latent_dim=8), seed=1, count=70), torch.zeros(70, dtype=torch.int64)
    whole = generate(model, z, y)
    other = z.clone()
    other[1:] += 5
    assert torch.equal(generate(model, other, y)[0], whole[0])
    assert generate(model, z[:0], y[:0]).shape == (0, 1, 28, 28)


def test_the_arc_between_two_latents_keeps_their_length_and_turns_evenly():
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    for share in (0.0, 0.25, 1.0):
        angle = torch.tensor(share * torch.pi / 2)
        expected = 2 * torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
        torch.testing.assert_close(slerp(start, end, share), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(slerp(start, 3 * start, 0.5), 2 * start)


def test_a_latent_walk_passes_each_seed_and_closes():
    model = build_model()
    walk = latent_walk(model, seeds=[3, 5], steps=4, label=2)
    assert walk.shape == (8, 1, 28, 28)
    for k, seed in ((0, 3), (4, 5)):
        assert torch.equal(walk[k], sample(model, seed=seed, count=1, labels=[2])[0][0])
    (a, y), (b, _) = (draw_inputs(model, seed=seed, count=1, labels=[2]) for seed in (3, 5))
    n = -1 if model.conditioning.in_latents else None
    for k, start, end, share in ((1, a, b, 0.25), (7, b, a, 0.75)):
        z = slerp(start[0, :n], end[0, :n], share)[None]
        z = z if n is None else torch.cat([z, a[:, -1:]], 1)
        torch.testing.assert_close(walk[k].float(), generate(model, z, y)[0].float(), rtol=0, atol=1)


def test_arcs_of_uniform_latents_stay_in_the_cube_and_pass_their_stops():
    stops = [torch.tensor([1.0, -0.9, 0.3]), torch.tensor([-1.0, 0.2, 0.8]), torch.tensor([0.1, 0.99, -1.0])]
    path = arcs(stops, 5, "uniform")
    assert path.shape == (10, 3) and torch.equal(path[::5], torch.stack(stops[:2]))
    assert path.abs().max() <= 1 and (path[1:5] != path[:1]).all()


def test_a_class_walk_passes_each_class_and_leaves_the_generator_alone():
    model = build_model()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    walk = class_walk(model, seed=3, y=[1, 7], steps=5)
    assert walk.shape == (10, 1, 28, 28)
    for k, label in ((0, 1), (5, 7)):
        assert torch.equal(walk[k], sample(model, seed=3, count=1, labels=[label])[0][0])
    assert not torch.equal(walk[2], walk[0])
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    with pytest.raises(ConfigError, match="cannot walk between"):
        class_walk(build_model(conditioning="none"), seed=0, y=[0, 1], steps=2)
    model.network.requires_grad_(False)
    for name, layer in list(model.network.named_modules()):
        if isinstance(layer, torch.nn.Embedding):
            model.network.set_submodule(name, torch.nn.Identity())
    with pytest.raises(ConfigError, match="no embeddings .* give the run or its generator.safetensors"):
        class_walk(model, seed=3, y=[1, 7], steps=5)


def test_a_model_samples_by_its_labels_and_as_many_as_are_given():
    model = build_model()
    found = model.sample(labels=[3, 1, 4], seed=2)
    assert (len(found), found.labels.tolist(), found.images.shape) == (3, [3, 1, 4], (3, 28, 28, 1))
    images, labels = sample(model, seed=2, count=3, labels=[3, 1, 4])
    assert np.array_equal(found.images, images.permute(0, 2, 3, 1).numpy())
    assert len(model.sample()) == 25
    for wrong in ({"count": 0}, {"seed": -1}, {"count": 2.0}, {"count": "3"}, {"count": True}, {"seed": 1.5}):
        with pytest.raises(ConfigError, match="must be"):
            model.sample(**wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_saved_as_a_grid_an_archive_or_a_folder_of_images(tmp_path, channels):
    found = build_model(channels=channels).sample(4)
    assert found.save(tmp_path / "four.png") == tmp_path / "four.png"
    with Image.open(tmp_path / "four.png") as image:
        assert image.size == (448, 448)  # two by two, enlarged to 400 or more
        assert np.array_equal(np.asarray(image).reshape(448, 448, -1)[:224:8, :224:8], found.images[0])
    assert (tmp_path / "four.png").read_bytes() == found.save(tmp_path / "upper.PNG").read_bytes()
    found.save(tmp_path / "four.npz", truncation=0.5)
    with np.load(tmp_path / "four.npz") as saved:
        assert np.array_equal(saved["images"], found.images) and np.array_equal(saved["labels"], found.labels)
        assert saved["truncation"] == 0.5
    found.save(tmp_path / "four")
    written = sorted(path.relative_to(tmp_path / "four").as_posix() for path in (tmp_path / "four").rglob("*.png"))
    places = [f"{label}/{found.labels[:k].tolist().count(label):05d}.png" for k, label in enumerate(found.labels)]
    assert written == sorted(places)
    with Image.open(tmp_path / "four" / places[2]) as image:
        assert np.array_equal(np.asarray(image).reshape(28, 28, -1), found.images[2])
    assert found._repr_png_().startswith(b"\x89PNG")


def test_a_folder_that_is_stopped_half_way_leaves_nothing(tmp_path, monkeypatch):
    found, made = build_model().sample(8), []

    def stop_at_five(images):
        made.append(images)
        if len(made) == 5:
            raise KeyboardInterrupt
        return grid(images)

    monkeypatch.setattr(sampling, "grid", stop_at_five)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").touch()
    for name in ("new", "kept"):
        made.clear()
        with pytest.raises(KeyboardInterrupt):
            found.save(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "notes.txt"]


def test_classes_have_names_in_requests_and_in_folders(tmp_path):
    names = ("cat", "Dog", "a/b", "..", "c:d", *"56789")
    model = replace(build_model(), class_names=names)
    found = model.sample(labels=["dog", 0, "CAT", 2, 3, 4], seed=1)
    assert found.labels.tolist() == [1, 0, 0, 2, 3, 4] and found.class_names == names
    assert np.array_equal(found.images, build_model_images(model, found.labels))
    found.save(tmp_path / "drawn")
    folders = {path.name: len(list(path.iterdir())) for path in (tmp_path / "drawn").iterdir()}
    assert folders == {"cat": 2, "Dog": 1, "a-b": 1, "class": 1, "c-d": 1}
    assert model.sample(labels="dog,0").labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="no class 'cow'; choose among cat, Dog"):
        model.sample(labels=["cow"])
    with pytest.raises(ConfigError, match="no class has a name"):
        build_model().sample(labels=["cow"])


def test_folders_of_classes_exist_on_every_system_and_differ():
    names = ["a/b", "a:b", "Cat", "cat", "con", "NUL.x", " .hidden. ", "\u732b", "m" * 300, "C++", "tea"]
    folders = folder_names(range(12), names)
    assert [folders[k] for k in range(8)] == [
        "a-b 0", "a-b 1", "Cat 2", "cat 3", "con-", "NUL-.x", "hidden", "\u732b",
    ]  # fmt: skip
    assert folders[8] == "m" * 60 and folders[9] == "C++" and folders[10] == "tea" and folders[11] == "11"
    assert folder_names([-1]) == {-1: ""}
    assert folder_names([0, 1, 2], ["a/b", "a:b", "a-b 0"]) == {0: "0 a-b", 1: "1 a-b", 2: "2 a-b 0"}
    assert len({name.casefold() for name in folders.values()}) == len(folders)


def build_model_images(model, labels):
    images, _ = sample(model, seed=1, count=len(labels), labels=labels.tolist())
    return images.permute(0, 2, 3, 1).numpy()


def test_images_without_labels_are_saved_side_by_side(tmp_path):
    found = build_model(conditioning="none").sample(3)
    found.save(tmp_path / "three")
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == [f"0000{k}.png" for k in range(3)]


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_truncation_is_a_share(strength):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        truncate(build_model("stylegan-lite", g_width=16, d_width=16), strength)


def test_truncation_needs_styles():
    with pytest.raises(ConfigError, match="no styles to truncate"):
        truncate(build_model(), 0.5)
