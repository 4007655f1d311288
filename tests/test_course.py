"""The bundle a course asks for, opened and run as a grader would."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, write_set
from PIL import Image

import gansmith as gs
from gansmith.checkpoints import FORMAT
from gansmith.conditioning import UNCONDITIONAL, Conditioning, conditioned_spec
from gansmith.config import load_config, resolve
from gansmith.coursework import write_bundle
from gansmith.coursework.bundle import TRAINING_NEEDS
from gansmith.coursework.sources import package_files
from gansmith.coursework.tiles import missing_classes, reorder_clusters, typical_clusters
from gansmith.data.image_files import read_npz
from gansmith.data.images import Images, ImageSpec
from gansmith.errors import GansmithError, RunError
from gansmith.files import without_folders, write_json
from gansmith.metrics.features import load_feature_network
from gansmith.models import load_generator
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.runs import create_run, open_run, write_config
from gansmith.sampling import Model, numpy_latents
from gansmith.signature import as_exported
from gansmith.training.inputs import TrainingData, load_training_data
from gansmith.training.loop import train_events

SOURCE = Path(gs.__file__).parent


@pytest.fixture
def unlabelled(trained, tiny):
    return trained(tiny("default-unlabelled"))


def opened(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        file.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def whole_bundle(_trained, digit_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    config = resolve("default-unlabelled", arguments={**TINY, "data_dir": str(digit_dir)})
    notes = write_bundle([open_run(_trained(config))], folder / "submission.zip")
    return opened(folder / "submission.zip", folder / "opened"), notes


@pytest.fixture
def bundle(whole_bundle, tmp_path):
    """Give an opened bundle, which a test may change, and what was said of it."""
    folder, notes = whole_bundle
    return shutil.copytree(folder, tmp_path / "opened"), notes


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_bundle_holds_what_is_asked_for_and_says_so(bundle):
    folder, _ = bundle
    names = files_in(folder)
    assert names >= {
        "generator.json", "generator.h5", "generator.keras", "evaluation.py", "train.py", "report.pdf", "grid.png",
        "loss.png", "film.gif", "README.txt", "manifest.json", "data.npz", "config.toml", "classifier.npz",
        "gansmith/training/step.py",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert 0 <= manifest["keras_largest_pixel_difference"] < 1e-4
    with Image.open(folder / "grid.png") as grid:
        assert grid.width / grid.info["dpi"][0] == pytest.approx(4, abs=0.01) and grid.size[0] == grid.size[1]


def test_the_readme_names_files_that_are_there(bundle):
    folder, _ = bundle
    text = (folder / "README.txt").read_text()
    named = set(re.findall(r"[\w/.-]+\.(?:py|png|gif|pdf|json|h5|keras|npz|toml)\b", text))
    assert named <= files_in(folder) and {"gansmith/training/step.py", "gansmith/networks/compact.py"} <= named
    assert all(name in text for name in TRAINING_NEEDS) and "without labels" in text


@pytest.mark.slow
def test_equal_runs_make_equal_bundles(unlabelled, tmp_path):
    for name in ("a.zip", "b.zip"):
        write_bundle([unlabelled], tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_bundle_says_nothing_of_folders_on_this_machine(bundle, digit_dir):
    folder, _ = bundle
    assert load_config(folder / "config.toml", written_in=FORMAT).data_dir == ""
    for name in files_in(folder):
        assert str(digit_dir).encode() not in (folder / name).read_bytes(), name


def test_paths_of_a_command_are_their_last_part_alone():
    words = ["gansmith", "train", "--data-dir=/home/me/a=b/set", "--out", "/home/me/run", "--g-lr=0.1", "../x"]
    assert without_folders(words) == ["gansmith", "train", "--data-dir=set", "--out", "run", "--g-lr=0.1", "../x"]


# The grid


def test_evaluation_needs_no_gansmith_and_generates_the_same_grid(bundle):
    folder, notes = bundle
    first = np.asarray(Image.open(folder / "grid.png"))
    (folder / "grid.png").unlink()
    # A grader's machine without Keras, torch and this package: all are made unimportable.
    blocked = "import sys; sys.modules.update(keras=None, gansmith=None, torch=None)\n"
    script = blocked + f"import runpy; runpy.run_path({str(folder / 'evaluation.py')!r}, run_name='__main__')"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert "generated with NumPy" in shown.stdout
    again = np.asarray(Image.open(folder / "grid.png"))
    assert first.shape == again.shape and np.abs(first.astype(int) - again).max() <= 1
    missing = [note.split()[1] for note in notes if note.startswith("class ")]
    assert (f"missing: {', '.join(missing)}" if missing else "every class occurs") in shown.stdout


@pytest.mark.slow
def test_evaluation_by_keras_generates_the_same_grid(bundle):
    pytest.importorskip("keras")
    folder, _ = bundle
    first = np.asarray(Image.open(folder / "grid.png"))
    (folder / "grid.png").unlink()
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "keras")}
    done = subprocess.run(
        [sys.executable, folder / "evaluation.py"], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0 and "generated with Keras" in done.stdout, done.stderr
    again = np.asarray(Image.open(folder / "grid.png"))
    assert first.shape == again.shape and np.abs(first.astype(int) - again).max() <= 1


CELL = """
import keras, numpy as np
generator = keras.models.model_from_json(open("generator.json").read())
generator.load_weights("generator.h5")
z_dim = {z_dim}
np.random.seed(504)
images = generator.predict(np.random.normal(size=[25, z_dim]), verbose=0)
np.save("cell.npy", images)
"""


def tiles_of(grid: Path) -> np.ndarray:
    """The 25 digits (25, 28, 28, 1) of a grid of 5 by 5."""
    with Image.open(grid) as picture:
        side = picture.width // 5
        tiles = np.asarray(picture).reshape(5, side, 5, side)[:, :: side // 28, :, :: side // 28]
    return tiles.transpose(0, 2, 1, 3).reshape(25, 28, 28, 1)


@pytest.mark.slow
@pytest.mark.parametrize("python", [pytest.param("", id="this"), pytest.param("KERAS_2_PYTHON", id="keras-2")])
def test_the_cell_of_the_assignment_draws_the_grid(python, bundle):
    """Its Keras 2 variant needs a Python with tensorflow 2.15, named in KERAS_2_PYTHON."""
    folder, _ = bundle
    program = os.environ.get(python) if python else sys.executable
    if program is None:
        pytest.skip(f"name a Python with tensorflow 2.15 in {python}")
    settings = json.loads((folder / "evaluation.json").read_text())
    assert f"np.random.normal(size=[25, {settings['z_dim']}])" in (folder / "README.txt").read_text()
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "keras")}
    script = CELL.format(z_dim=settings["z_dim"])
    done = subprocess.run([program, "-c", script], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    cell = np.load(folder / "cell.npy")
    assert np.abs(np.rint((cell + 1) * 127.5) - tiles_of(folder / "grid.png")).max() <= 1


@pytest.mark.slow
def test_the_generator_handed_in_draws_the_grid_by_numpys_seed(bundle, gansmith):
    folder, _ = bundle
    code, _, _ = gansmith("sample", folder / "generator.h5", "--numpy-seed", "504", "--out", folder / "25.npz")
    with np.load(folder / "25.npz") as arrays:
        assert code == 0 and np.abs(arrays["images"].astype(int) - tiles_of(folder / "grid.png")).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices", [{"latent_distribution": "uniform", "g_activation": "gelu"}, {"latent_distribution": "sphere"}]
)
def test_evaluation_generates_the_same_under_unusual_choices(run_training, tiny, tmp_path, choices):
    run = run_training(tiny("default-unlabelled", **choices))
    write_bundle([run], tmp_path / "submission.zip")  # compares its own arithmetic with the generator's
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        settings = json.loads(archive.read("evaluation.json"))
    # A generator of latents on a sphere takes normal ones in a file, and projects them itself.
    expected = {"uniform": "uniform", "sphere": "normal"}[choices["latent_distribution"]]
    assert settings["latent_distribution"] == expected


def cluster_model(frequencies):
    """Return an untrained generator of clusters as often as these."""
    choices = {"clusters": len(frequencies), "g_width": 8, "d_width": 8, "conditioning": "clusters"}
    config, spec = resolve("default-unlabelled", arguments=choices), ImageSpec(28, 1, 0)
    G = NETWORKS[config.network](conditioned_spec(spec, config), config)[0].eval()
    return Model(G, config, spec, Conditioning(frequencies))


def ids_in_grid(model, original):
    """Return the ids that the 25 latents choose, before the clusters of `original` were put in another order."""
    exported = as_exported(model)
    z = numpy_latents(exported.config, seed=504, count=25)
    ids = (z[:, -1:] > exported.network.thresholds).sum(1)
    rows = model.network.embedding.weight[ids]
    found = torch.cdist(rows, original.network.embedding.weight).argmin(1)
    assert torch.equal(rows, original.network.embedding.weight[found])
    torch.testing.assert_close(model.conditioning.frequencies[ids], original.conditioning.frequencies[found])
    return found


def test_the_latents_of_the_grid_show_every_kind_of_image_by_a_rule_that_sees_no_generated_one(digits):
    """With the true classes as clusters, each shared out over several ids, 25 tiles meet nearly all."""
    pixels, labels = torch.from_numpy(digits[0])[:, None], torch.from_numpy(digits[1]).long()
    y = labels * 20 + torch.arange(len(labels)) % 20
    model = cluster_model(torch.bincount(y, minlength=200).double() / len(y))
    data = TrainingData(Images(pixels), None, y, model.conditioning, "")
    ordered = reorder_clusters(model, data, seed=504)
    found = ids_in_grid(ordered, model)
    assert len(set((found // 20).tolist())) >= 9 and len(set(found.tolist())) >= 22
    torch.testing.assert_close(*(each.conditioning.frequencies.sort().values for each in (model, ordered)))
    assert torch.equal(
        reorder_clusters(model, data, seed=504).network.embedding.weight, ordered.network.embedding.weight
    )


@pytest.mark.slow
def test_each_latent_of_the_grid_meets_a_cluster_of_its_own_where_there_are_many():
    pixels = torch.randint(0, 256, (2000, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    y = torch.arange(2000) * 7 % 1000
    frequencies = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double() + 0.1
    model = cluster_model(frequencies / frequencies.sum())
    ordered = reorder_clusters(model, TrainingData(Images(pixels), None, y, model.conditioning, ""), seed=504)
    found = ids_in_grid(ordered, model)
    assert len(set(found.tolist())) == 25
    assert model.conditioning.frequencies[found].mean() > 1.6 / 1000  # the largest of their shares


def test_typical_clusters_are_the_largest_of_equal_shares():
    frequencies = torch.tensor([0.03, 0.01, 0.02, 0.02] * 12 + [0.04], dtype=torch.float64)
    chosen = typical_clusters(frequencies, torch.arange(49).flip(0))
    assert len(chosen) == 25 and chosen[0] == 48  # alone in the first share
    assert sum(frequencies[chosen]) > 25 * frequencies.mean()
    assert chosen == sorted(chosen, reverse=True)


def test_a_generator_without_clusters_keeps_its_order():
    conditioning = Conditioning(torch.tensor([0.0, 0.5, 0.0, 0.5]).double(), has_labels=True)
    for each in (conditioning, UNCONDITIONAL):
        model = Model(torch.nn.Identity(), resolve("default"), ImageSpec(28, 1, 4), each)
        assert reorder_clusters(model, None, seed=504) is model


def test_missing_classes_are_those_of_no_image(digits):
    classifier = load_feature_network("mnist", ImageSpec(28, 1, 10))
    pixels, labels = torch.from_numpy(digits[0])[:, None], digits[1]
    assert missing_classes(pixels, classifier, range(10)) == [] and missing_classes(pixels, classifier, [3, 11]) == [11]
    assert missing_classes(pixels[labels != 7], classifier, range(10)) in (
        [7],
        [],
    )  # a lone odd digit may pass for a seven
    assert 3 in missing_classes(pixels[labels == 0], classifier, range(10))


# Training


def required_by(names) -> set[str]:
    """These distributions, and all that they cannot be installed without."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            try:
                lines = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # for another platform
                continue
            waiting += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]
    return found


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


def run_alone(folder: Path, script: str) -> str:
    """Run Python in a folder with what README.txt says to install and nothing else; gives what it printed."""
    allowed = required_by(TRAINING_NEEDS)
    blocked = [
        name
        for name, owners in metadata.packages_distributions().items()
        if name != "gansmith" and not any(re.sub(r"[-_.]+", "-", owner).lower() in allowed for owner in owners)
    ]
    script = BLOCK.format(blocked=blocked) + script
    # With -S, the .pth files that lead to an installed Gansmith are not read.
    environment = {"PYTHONPATH": sysconfig.get_path("purelib"), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAIN = """
import gansmith, pathlib, runpy
assert pathlib.Path(gansmith.__file__).is_relative_to(pathlib.Path.cwd()), gansmith.__file__
sys.argv = ["train.py", "--images", "{images}"]
runpy.run_path("train.py", run_name="__main__")
"""


def losses_of(folder: Path) -> list[tuple[int, float, float]]:
    with (folder / "losses.csv").open() as file:
        return [
            (int(row["images_seen"]), float(row["d_loss"]), float(row["g_loss"] or "nan"))
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_train_runs_without_gansmith_and_has_the_losses_that_gansmith_logs(bundle, tmp_path):
    folder, _ = bundle
    shown = run_alone(folder, TRAIN.format(images=128))
    config = load_config(folder / "config.toml", written_in=FORMAT).replace(images=128)
    config, data = load_training_data(config, read_npz(folder / "data.npz"))
    run = create_run(tmp_path / "own", config)
    assert all(event for event in train_events(run, data))
    own = [(row["images_seen"], row["d_loss"], row["g_loss"]) for row in run.log if "d_loss" in row]
    assert len(own) == 4 and losses_of(folder) == own  # the same code ran, so to the last bit
    assert all(f"images_seen {seen}  d_loss {d:.6g}  g_loss {g:.6g}" in shown for seen, d, g in own)
    grids = run.grids()
    assert (folder / "samples.png").read_bytes() == grids[-1][1].read_bytes()


@pytest.mark.slow
def test_train_takes_the_package_beside_it_even_where_gansmith_is_installed(bundle, tmp_path):
    folder, _ = bundle
    (folder / "gansmith/training/loop.py").write_text("raise SystemExit('the copy')\n")
    done = subprocess.run([sys.executable, folder / "train.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.strip() == "the copy"


@pytest.fixture
def training_folder(tmp_path, digits):
    """What `train.py` needs but for config.toml."""
    folder = tmp_path / "alone"
    for path, source in package_files((SOURCE / "coursework/training_script.py").read_text()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(source)
    shutil.copyfile(SOURCE / "coursework/training_script.py", folder / "train.py")
    np.savez(folder / "data.npz", images=digits[0][:100], labels=digits[1][:100])
    return folder


@pytest.mark.slow
def test_every_recipe_trains_with_the_part_of_the_package_that_is_handed_in(training_folder):
    for recipe in RECIPES:
        (training_folder / recipe).mkdir()
        config = resolve(recipe, arguments={**TINY, "g_width": 8, "d_width": 8})
        write_config(training_folder / recipe, config)
    script = TRAIN.format(images=64).replace("\n", "\n    ")
    shown = run_alone(
        training_folder,
        f"import shutil\nfor recipe in {list(RECIPES)}:\n    shutil.copyfile(recipe + '/config.toml', 'config.toml')\n"
        f"    print('#', recipe){script}\n    shutil.copyfile('losses.csv', recipe + '/losses.csv')\n",
    )
    assert shown.count("images_seen 64") == len(RECIPES), shown
    for recipe in RECIPES:
        assert losses_of(training_folder / recipe)[-1][0] == 64


@pytest.mark.slow
def test_train_starts_again_on_images_that_were_chosen_by_class(run_training, tiny, tmp_path):
    run = run_training(tiny("default", classes="1,3", limit_images=60, conditioning="none"))
    write_bundle([run], tmp_path / "submission.zip", allow_labels=True)
    folder = opened(tmp_path / "submission.zip", tmp_path / "opened")
    with np.load(folder / "data.npz") as arrays:
        assert set(arrays) == {"images"} and len(arrays["images"]) == 60
    assert "images_seen 64" in run_alone(folder, TRAIN.format(images=64))


@pytest.mark.slow
def test_what_is_handed_in_of_the_package_is_small_unchanged_and_closed(training_folder):
    script = (SOURCE / "coursework/training_script.py").read_text()
    files = package_files(script)
    assert len(script.splitlines()) <= 55 and len(files) <= 85 and sum(map(len, files.values())) < 720_000
    assert {"gansmith/__init__.py", "gansmith/training/loop.py", "gansmith/training/step.py"} <= set(files)
    for path, source in files.items():
        assert source == (SOURCE.parent / path).read_bytes()
    left_out = {"cli", "api.py", "coursework", "reports", "benchmarks", "exporters", "importers"}
    assert not left_out & {path.split("/")[1] for path in files}
    assert not {f"gansmith/data/{name}.py" for name in ("sources", "pictures", "parquet", "objects")} & set(files)
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files]
    run_alone(training_folder, f"import importlib\nfor name in {modules}:\n    importlib.import_module(name)\n")


def test_a_script_without_imports_takes_nothing_of_the_package():
    assert package_files("import json\nfrom torch import nn\nprint('gansmith.config')") == {}
    assert set(package_files("def f():\n    import gansmith.config")) == set()
    every = {"gansmith/__init__.py", "gansmith/interrupts.py"}
    assert set(package_files("from gansmith import errors")) == {*every, "gansmith/errors.py"}


@pytest.mark.slow
def test_code_of_ones_own_is_named_in_a_note(run_training, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "mine", NETWORKS["compact"])
    notes = write_bundle([run_training(tiny("default-unlabelled", network="mine"))], tmp_path / "submission.zip")
    assert [note for note in notes if "'mine'" in note and "train.py" in note]


# Rules


def test_images_chosen_by_their_labels_count_as_trained_with_labels(run_training, tiny, tmp_path):
    run = run_training(tiny("default-unlabelled", classes="0-4", conditioning="none"))
    with pytest.raises(RunError, match="by their labels"):
        write_bundle([run], tmp_path / "submission.zip")


@pytest.mark.slow
def test_weights_that_were_trained_with_labels_count_as_such_in_the_second_generation_too(run_training, tiny, tmp_path):
    source = run_training(tiny(conditioning="labels"), "source")
    for name in ("second", "third"):
        source = run_training(tiny(conditioning="none", start_from=str(source.directory)), name)
        with pytest.raises(RunError, match="began with the weights of .*, where labels were used"):
            write_bundle([source], tmp_path / "submission.zip")
    facts = source.facts()
    del facts["start_from"]["used_labels"]  # as runs of earlier versions have it
    write_json(source.directory / "run.json", facts)
    assert any("is not recorded" in note for note in write_bundle([source], tmp_path / "old.zip"))
    free = run_training(tiny(conditioning="none"), "free")
    run = run_training(tiny(conditioning="none", start_from=str(free.directory)), "allowed")
    write_bundle([run], tmp_path / "submission.zip")
    folder = opened(tmp_path / "submission.zip", tmp_path / "opened")
    assert "It began with the weights of free, which train.py leaves out." in (folder / "README.txt").read_text()
    assert load_config(folder / "config.toml", written_in=FORMAT).start_from == "free"


@pytest.mark.slow
def test_rules_are_named_before_anything_is_written(gansmith, run_training, tiny, tmp_path, digits):
    labelled = run_training(tiny(conditioning="labels"), "labelled").directory
    code, _, err = gansmith("handin", labelled)
    assert code == 2 and "trained with labels" in err and "--allow-labels" in err
    images, labels = digits
    both = write_set(tmp_path / "both", images, labels)
    write_set(both, images[:100], labels[:100], stem="t10k")
    seen = run_training(tiny("mlp-small", data_dir=str(both)), "seen").directory
    code, _, err = gansmith("handin", seen)
    assert code == 2 and "are test images" in err and "--allow-test-images" in err
    code, _, err = gansmith("handin", seen, "--out", "submission.tar")
    assert code == 2 and "does not end in .zip" in err
    assert not [name for name in os.listdir() if name.startswith(("submission", ".partial"))]
    code, out, err = gansmith("handin", seen, labelled, "--allow-test-images")
    assert (code, err) == (0, "") and "submission.zip" in out
    assert load_generator(seen).spec.num_classes == 0


@pytest.mark.slow
def test_a_run_with_labels_can_be_handed_in_where_the_rule_is_lifted(run_training, tiny, tmp_path):
    run = run_training(tiny(conditioning="labels", classes="1,3"))
    write_bundle([run], tmp_path / "submission.zip", allow_labels=True)
    folder = opened(tmp_path / "submission.zip", tmp_path / "opened")
    assert json.loads((folder / "evaluation.json").read_text())["labels"] == [1, 3] * 12 + [1]
    with np.load(folder / "data.npz") as arrays:
        assert set(arrays["labels"].tolist()) == {1, 3}
    text = (folder / "README.txt").read_text()
    assert "with labels on images chosen by them" in text and "Labels: 1, 3." in text
    lines = text[text.index("With Keras alone") : text.index("Labels:")].splitlines()
    code = "\n".join(["import json, keras, numpy as np", *(line.strip() for line in lines if line.startswith("    "))])
    code += "\nassert images.shape == (25, 28, 28, 1)"
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder / "keras")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr


def test_data_that_changed_since_training_is_refused(unlabelled, tmp_path):
    unlabelled.record(data={**unlabelled.facts()["data"], "sha256": "0" * 64})
    with pytest.raises(GansmithError, match="have changed since"):
        write_bundle([unlabelled], tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.slow
def test_the_function_of_the_package_writes_the_same_bundle(unlabelled, tmp_path):
    write_bundle([unlabelled], tmp_path / "a.zip")
    assert gs.handin(unlabelled.directory, out=tmp_path / "b.zip") == tmp_path / "b.zip"
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
