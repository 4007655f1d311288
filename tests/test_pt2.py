"""Generators as torch.export saves them give torch's own images, and nothing in such a file runs."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_generators import Conditional

from gansmith.errors import DataError
from gansmith.importers import pt2_worker
from gansmith.models import load_generator
from gansmith.sampling import sample
from gansmith.signature import as_exported

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch's exporters


Z, Y = torch.linspace(-2, 2, 18).view(3, 6, 1, 1), torch.tensor([4, 0, 2])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A file of `Conditional`, with a dynamic batch size and, as torch writes them, pickled example inputs."""
    torch.manual_seed(0)
    path, batch = tmp_path_factory.mktemp("pt2") / "g.pt2", torch.export.Dim("batch")
    dynamic_shapes = ({0: batch}, {0: batch})
    torch.export.save(torch.export.export(Conditional().eval(), (Z, Y), dynamic_shapes=dynamic_shapes), path)
    return path


def test_the_images_are_those_that_torch_computes(saved, tmp_path):
    expected = torch.export.load(saved).module()(Z, Y).detach()
    generator = pt2_worker.read(str(saved), str(tmp_path), "1", "0")
    assert (generator.latent_dim, generator.num_classes, generator.metadata) == (6, 5, {})
    np.testing.assert_allclose(generator.generate(Z.flatten(1).numpy(), Y.numpy()), expected, atol=1e-6)


@pytest.mark.slow
def test_a_fixed_batch_and_maps_of_latents_on_the_command_line(tmp_path, gansmith):
    G = torch.nn.Sequential(torch.nn.ConvTranspose2d(9, 4, 7), torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 1, 4, 4))
    torch.export.save(
        torch.export.export(torch.nn.Sequential(G, torch.nn.Sigmoid()).eval(), (torch.zeros(4, 9, 1, 1),)), "g.pt2"
    )
    code, out, err = gansmith("sample", "g.pt2", "--count", "6", "--out", "images.npz")
    assert (code, err) == (0, "") and "its last layer is a sigmoid" in out
    with np.load("images.npz") as images:
        assert images["images"].shape == (6, 28, 28, 1)


@pytest.mark.slow
def test_our_own_files_give_the_same_samples_and_class_names(finished, tmp_path, gansmith):
    assert gansmith("export", finished.directory, "--format", "pt2", "--out", tmp_path / "out")[0] == 0
    read, own = load_generator(tmp_path / "out" / "generator.pt2"), as_exported(load_generator(finished.directory))
    assert (read.spec, read.config, read.class_names) == (own.spec, own.config, own.class_names)
    (images, labels), (expected, same) = sample(read, seed=5, count=40), sample(own, seed=5, count=40)
    assert torch.equal(labels, same) and (images.int() - expected.int()).abs().max() <= 1


@pytest.fixture
def finished(run_training, tiny):
    return run_training(tiny(conditioning="labels"))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def changed(saved: Path, path: Path, **changes) -> Path:
    """Write a file with some entries changed: `model`, a function of its description, or others by their names."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            name = entry.filename.partition("/")[2]
            data = old.read(entry)
            for key, change in changes.items():
                if name.rpartition("/")[2].partition(".")[0] == key and name.endswith((".json", ".pt")):
                    data = change(data)
            new.writestr(entry.filename, data)
    return path


def pickled(_: bytes) -> bytes:
    torch.save(Bomb(), "bomb")
    return Path("bomb").read_bytes()


def edited(edit):
    """Return a function of JSON's bytes that applies `edit` to what it describes."""

    def change(data: bytes) -> bytes:
        if not data.startswith(b"{"):
            return data
        described = json.loads(data)
        edit(described)
        return json.dumps(described).encode()

    return change


def test_what_torch_would_run_is_left_out(saved, tmp_path):
    """Example inputs are a pickle, guards are Python."""
    run = "__import__('os').system('touch exploded')"
    path = changed(
        saved,
        tmp_path / "bomb.pt2",
        model=lambda data: (
            edited(lambda program: program.update(guards_code=[run]))(data) if data[:1] == b"{" else pickled(data)
        ),
    )
    generator = pt2_worker.read(str(path), str(tmp_path), "1", "0")
    assert generator.generate(Z.flatten(1).numpy(), Y.numpy()).shape == (3, 3, 8, 8)
    assert not Path("exploded").exists()


def set_target(program) -> None:
    program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"


def set_size(program) -> None:
    size = next(found for found in pt2_worker._dicts(program) if "expr_str" in found)
    size["expr_str"] = "__import__('os').system('touch exploded')"


def set_tree(program) -> None:
    tree = [1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(tree)


def set_graph(program) -> None:
    program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_graph": {}}


def set_pickle(listed) -> None:
    next(iter(listed["config"].values()))["use_pickle"] = True


def set_place(listed) -> None:
    next(iter(listed["config"].values()))["path_name"] = "../models/model.json"


@pytest.mark.parametrize(
    ("part", "edit", "words"),
    [
        ("model", set_target, "operator torch.hub.load, which is not allowed"),
        ("model", set_size, "no arithmetic of sizes"),
        ("model", set_tree, "something else than tensors"),
        ("model", set_graph, "takes graph, which is not allowed"),
        ("model_weights_config", set_pickle, "weight table.weight is pickled"),
        ("model_weights_config", set_place, "weight table.weight is pickled"),
    ],
)
def test_what_is_not_plain_is_refused(part, edit, words, saved, tmp_path):
    path = changed(saved, tmp_path / "bad.pt2", **{part: edited(edit)})
    with pytest.raises(DataError, match=words):
        pt2_worker.write_checked(path, tmp_path / "copy.pt2")
    assert not Path("exploded").exists()


def test_a_pickle_and_an_archive_without_a_graph_are_refused(tmp_path):
    torch.save(Bomb(), tmp_path / "x.pt2")
    with pytest.raises(DataError, match="its weights are pickled, or it has no graph"):
        pt2_worker.write_checked(tmp_path / "x.pt2", tmp_path / "copy.pt2")
    (tmp_path / "y.pt2").write_bytes(b"no archive")
    with pytest.raises(DataError, match="it is no archive"):
        pt2_worker.write_checked(tmp_path / "y.pt2", tmp_path / "copy.pt2")
    assert not Path("exploded").exists()


@pytest.mark.slow
def test_a_file_that_is_refused_is_named_in_one_sentence(tmp_path):
    (tmp_path / "y.pt2").write_bytes(b"no archive")
    with pytest.raises(
        DataError, match=r"y.pt2 is not an exported generator that can be read \(it is no archive"
    ) as caught:
        load_generator(tmp_path / "y.pt2")
    assert "\n" not in str(caught.value)
