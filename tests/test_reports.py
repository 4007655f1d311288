"""Reports, read back: by a PDF library, as HTML, and for runs that never got far."""

import html.parser
import io
import shutil
from dataclasses import replace

import pypdf
import pytest
from conftest import TINY
from PIL import Image

from gansmith.config import FIELDS, resolve
from gansmith.files import to_json, write_json
from gansmith.models import load_generator
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.reports import to_html, to_pdf, without_places, write_report
from gansmith.reports.compose import _hyperparameters, _question, compose
from gansmith.runs import create_run, open_run
from gansmith.sampling import sample
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digit_dir):
    """Four runs: two seeds of one experiment, and the same without its moving average."""
    folder = tmp_path_factory.mktemp("project")
    for name, changes in (("a", {"ema": 0.05}), ("b", {"ema": 0.05, "seed": 1}), ("c", {}), ("d", {"seed": 1})):
        choices = {**TINY, "data_dir": str(digit_dir), **changes}
        config, data = load_training_data(resolve("mlp-small", arguments=choices))
        for _ in train_events(create_run(folder / name, config), data):
            pass
    return folder


@pytest.fixture
def project(trained, tmp_path):
    """Copies of the four runs, with a validation FD ratio each."""
    shutil.copytree(trained, tmp_path / "project", symlinks=True)
    runs = [open_run(tmp_path / "project" / name) for name in "abcd"]
    for run, ratio in zip(runs, (4.0, 6.0, 10.0, 10.0), strict=True):
        run.append(run.metrics_path, {"images_seen": 256, "validation_fd_ratio": ratio, "n": 10_000})
    return runs


def texts(blocks):
    return " ".join(
        [
            *(block["text"] for block in blocks if "text" in block),
            *(item for block in blocks if block["kind"] == "list" for item in block["items"]),
            *(cell for block in blocks if block["kind"] == "table" for row in block["rows"] for cell in row),
        ]
    )


def test_a_report_says_what_was_tried_what_helped_and_by_how_much(project):
    title, blocks, pictures = compose(project)
    said = texts(blocks)
    assert title == "mlp-small on mnist"
    assert "ema 0.05 -> 0: did harm, validation FD ratio 10.00 +- 0.00 against 5.00 +- 1.41 (x 2)." in said
    for section in ("Question and data", "Experiments", "Special skills", "Visualisation", "Training failures"):
        assert section in [block["text"] for block in blocks if block["kind"] == "heading"]
    shown = [shown["name"] for block in blocks if block["kind"] == "pictures" for shown in block["pictures"]]
    assert sorted(shown) == sorted(pictures) and {"loss.png", "film.png", "real.png"} <= set(pictures)
    for data in pictures.values():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"


def test_runs_are_compared_at_one_number_of_images(project):
    quick = (4.4, 6.4, 10.8, 10.8)
    for run, ratio in zip(project, quick, strict=True):
        run.append(run.metrics_path, {"images_seen": 256, "validation_fd_ratio": ratio, "n": 5_000})
    project[0].append(project[0].metrics_path, {"images_seen": 256, "validation_fd_ratio": 1.0, "n": 20_000})
    assert "did harm, validation FD ratio 10.00 +- 0.00 against 5.00 +- 1.41" in texts(compose(project)[1])


def test_runs_of_the_same_seed_do_not_count_as_repeats(project, tmp_path):
    shutil.copytree(project[0].directory, tmp_path / "again", symlinks=True)
    said = texts(compose([project[0], open_run(tmp_path / "again")])[1])
    assert "none (the same seed again): not repeated with other seeds, so it may be chance" in said


def test_hyperparameters_are_fields_in_their_groups_order(project):
    (table,) = (block for block in _hyperparameters(project[0].config) if block["kind"] == "table")
    names = [row[0] for row in table["rows"]]
    assert names == [name for name in FIELDS if name in names]
    asked = {"images", "batch_size", "seed", "network", "latent_dim", "weight_init", "conditioning", "objective"}
    assert asked | {"g_optimizer", "d_optimizer", "g_lr", "d_lr", "beta1", "beta2"} <= set(names)
    assert not {"ema", "augment", "r1_gamma", "log_every", "threads", "clusters", "schedule_images"} & set(names)
    assert dict((row[0], row[2]) for row in table["rows"])["g_lr"] == FIELDS["g_lr"].metadata["help"]


def test_a_network_that_skipped_its_last_steps_has_its_last_loss(project):
    run = project[0]
    row = {**run.log[-1], "images_seen": 999}
    run.append(run.log_path, {key: value for key, value in row.items() if key != "g_loss"})
    assert compose([run])


def test_a_verdict_with_gates_comes_before_a_validation_fd_ratio(project):
    run = project[0]
    found = {"fd_ratio": 5.0, "fd_ratios": {"trained": 5.0}, "n": 10_000, "valid": False}
    found["metrics"] = {"coverage": {"value": 0.5, "real": 0.9}}
    gate = {"ok": False, "figure": "coverage", "value": 0.5, "limit": 0.8, "meaning": "parts are missing"}
    run.append(run.metrics_path, {"images_seen": 256, "tier": "full", **found, "gates": {"coverage": gate}})
    shown = texts(compose([run])[1])
    assert "This FD ratio is not valid, because these gates failed: coverage." in shown
    assert "parts are missing" in shown and "the answer is: FD ratio 5.00." in shown
    assert "INVALID: FD ratio 5.00 (1.00 = as close as other real images; trained 5.00; 10,000 samples)" in shown
    few = {**found, "fd_ratio": None, "fd_ratios": {}, "gates": {"coverage": gate, "pixels": {**gate, "ok": True}}}
    run.append(run.metrics_path, {"images_seen": 256, "tier": "full", **few, "n": 20_000})
    shown = texts(compose([run])[1])  # a passed gate says by which figure, a failed one also what that means
    assert "the evaluation says: INVALID: no FD ratio; failed: coverage." in shown and "the answer is" not in shown
    assert "coverage 0.5 (at least 0.8): parts are missing" in shown and shown.count("parts are missing") == 1


def test_the_newest_verdict_on_the_runs_own_data_is_reported(project):
    run = project[0]
    gates = {"coverage": {"ok": True, "figure": "coverage", "value": 0.9, "limit": 0.8, "meaning": ""}}
    row = {"images_seen": 256, "tier": "full", "n": 10_000, "gates": gates, "valid": True, "metrics": {}}
    for data, ratio in (("mnist", 9.0), ("mnist", 3.0), ("fashion-mnist", 77.0)):
        run.append(run.metrics_path, {**row, "data": data, "fd_ratio": ratio, "fd_ratios": {"trained": ratio}})
    assert "the answer is: FD ratio 3.00." in texts(compose([run])[1])


def test_one_run_against_one_shows_no_effect(project):
    said = texts(compose([project[0], project[2]])[1])
    assert "not repeated with other seeds, so it may be chance, validation FD ratio 10.00 against 4.00" in said
    assert "did harm" not in said
    said = texts(compose(project[:3])[1])  # two seeds against one say no more
    assert "not repeated with other seeds" in said and "did harm" not in said


def test_runs_on_other_images_or_of_another_length_are_no_repeats_and_have_no_effect(project):
    facts = project[1].facts()
    facts["data"]["sha256"] = "0" * 64
    write_json(project[1].directory / "run.json", facts)
    said = texts(compose(project[:2])[1])
    assert "other training images: validation FD ratios on other images do not compare." in said
    row = project[3].log[0]
    project[3].log_path.write_text(to_json({**row, "images_seen": 64}) + "\n")
    shutil.rmtree(project[3].directory / "checkpoints")
    said = texts(compose(project[2:])[1])
    assert "trained for 64 of" in said and "not repeated with other seeds" in said


def test_a_report_that_is_handed_in_names_no_folders_of_this_machine(project):
    run = project[0]
    starts = [{"command": ["gansmith", "train", "--data-dir", "/home/me/set"], "at": "now"}]
    run.record(starts=starts, start_from={"taken": ["G starts with the weights of /home/me/other"]})
    run = replace(run, config=run.config.replace(start_from="/home/me/other"))
    blocks = compose([run])[1]
    assert "/home/me" in texts(blocks)
    said = texts(without_places(blocks, [run]))
    assert "/home/me" not in said and "--data-dir set" in said and "the weights of other" in said


def test_ratios_of_different_numbers_of_images_have_no_effect(project):
    for run in project[2:]:
        rows = [{**row, "n": 500} if "validation_fd_ratio" in row else row for row in run.metrics]
        run.metrics_path.write_text("".join(to_json(row) + "\n" for row in rows))
    said = texts(compose(project)[1])
    assert "validation FD ratios of different numbers of images do not compare." in said
    assert "helped" not in said and "did harm" not in said


def test_ratios_by_different_evaluators_have_no_effect(project):
    """As where one was trained between two runs: the later one is scored by it too."""
    for run, names in zip(project, [["random"]] * 2 + [["random", "trained"]] * 2, strict=True):
        row = {**run.validation_scores()[-1], "images_seen": 512, "ratios": dict.fromkeys(names, 4.0)}
        run.append(run.metrics_path, row)
    said = texts(compose(project)[1])
    assert "validation FD ratios by different evaluators do not compare." in said
    assert "helped" not in said and "did harm" not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditioning": "none"}, "No labels are used. G and D are unconditional."),
        ({"conditioning": "none", "classes": "0-4"}, "chosen by their labels (0-4). G and D are unconditional."),
        ({"conditioning": "labels"}, "G and D are conditioned on class labels."),
        (
            {"conditioning": "labels", "d_conditioning": "classifier"},
            "D has an auxiliary classifier that predicts them.",
        ),
        (
            {"conditioning": "clusters"},
            "No labels are used. G and D are conditioned on k-means clusters as pseudo-labels.",
        ),
    ],
)
def test_the_use_of_labels_is_stated(project, changes, words):
    run = replace(project[0], config=project[0].config.replace(**changes))
    said = " ".join(block["text"] for block in _question(run) if "text" in block)
    assert words in said


def test_the_grid_is_of_the_newest_checkpoint(project):
    run = project[0]
    Image.new("L", (28, 28)).save(run.directory / "grid.png")  # of some earlier time
    expected = to_png(enlarge(grid(sample(load_generator(run.directory), seed=0, count=25)[0])))
    assert compose([run])[2]["grid.png"] == expected


def test_differences_within_the_spread_of_repeats_are_no_effects(project):
    for run in project[2:]:
        run.append(run.metrics_path, {"images_seen": 257, "validation_fd_ratio": 5.5, "n": 10_000})
    assert "no clear difference, validation FD ratio 5.50 +- 0.00 against 5.00 +- 1.41" in texts(compose(project)[1])


def test_the_pdf_is_tagged_repeatable_and_readable(project, tmp_path):
    for name in ("one.pdf", "two.pdf"):
        write_report(project, tmp_path / name)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    pdf = pypdf.PdfReader(tmp_path / "one.pdf")
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"] and "/StructTreeRoot" in pdf.trailer["/Root"]
    text = " ".join(page.extract_text() for page in pdf.pages)
    assert "What was tried" in text and "did harm" in text and "Losses of discriminator" in text


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images.append(found)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_names_in_letters_that_no_font_has_are_no_obstacle():
    for name in ("\u732b", "cat\U0001f431", "\u0939\u093f\u0928", "\u043a\u043e\u0442 \u2192 \u00e9"):
        blocks = [{"kind": "text", "text": name}, {"kind": "list", "items": [name]}]
        assert to_pdf({"title": name, "blocks": blocks}, {}).startswith(b"%PDF")


def test_flags_beside_another_recipe_are_named(project):
    path = project[2].directory / "config.toml"
    path.write_text(path.read_text().replace('recipe = "mlp-small"', 'recipe = "mlp-keras"'))
    project[2] = open_run(project[2].directory)
    said = texts(compose([project[0], project[2]])[1])
    assert "recipe mlp-keras" in said and "batch_size 16" in said.split("recipe mlp-keras", 1)[1]


def test_the_html_needs_no_other_file_and_escapes_what_it_shows(project, tmp_path):
    write_report(project, tmp_path / "a.html")
    page = Page()
    page.feed((tmp_path / "a.html").read_text())
    assert not page.open and page.images and all(image["alt"] for image in page.images)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    shown = to_html({"title": "<script>", "blocks": [{"kind": "text", "text": "a < b & c"}]}, {}).decode()
    assert "<script>" not in shown and "a &lt; b &amp; c" in shown
    assert b"/StructTreeRoot" in to_pdf({"title": "#x", "blocks": [{"kind": "text", "text": "#panic() $x$ *"}]}, {})


def test_a_run_that_never_got_anywhere_still_has_a_report(tmp_path, tiny):
    run = create_run(tmp_path / "dead", tiny("dcgan-sgd"))
    run.append(run.log_path, {"images_seen": 0, "kind": "failure", "failure": "nan", "message": "the loss broke"})
    said = texts(compose([run])[1])
    assert "stays open" in said and "the loss broke" in said and "before it could draw" in said
    write_report([run], tmp_path / "dead.pdf")


def test_a_report_names_every_start_and_every_rollback(tmp_path, tiny):
    run = create_run(tmp_path / "run", tiny())
    starts = [
        {"command": ["gansmith", "train", "--out", "a b"], "at": "now"},
        {"command": ["gansmith", "resume"], "at": ""},
    ]
    run.record(starts=starts)
    for seconds in (30.0, 60.0, 20.0, 70.0):
        run.append(run.log_path, {"images_seen": 64, "d_loss": 1.0, "g_loss": 1.0, "elapsed_s": seconds})
    run.append(run.log_path, {"kind": "rollback", "images_seen": 64, "failure": "diverged", "message": "went back"})
    said = texts(compose([run])[1])
    assert "gansmith train --out 'a b'; then gansmith resume" in said and "went back" in said
    assert "2.2" in said  # minutes: 60 and 70 seconds


def test_twenty_runs_fit_in_one_report(tmp_path, tiny):
    runs = [create_run(tmp_path / f"r{k:02d}", tiny("mlp-small", seed=k, batch_size=16 + k // 10)) for k in range(20)]
    write_report(runs, tmp_path / "all.pdf")
    text = " ".join(page.extract_text() for page in pypdf.PdfReader(tmp_path / "all.pdf").pages)
    assert all(f"r{k:02d}" in text for k in range(20))


def test_the_command_names_what_it_cannot_do(gansmith, run_training, tiny, tmp_path):
    run = run_training(tiny("mlp-small", g_width=8, d_width=8))
    code, out, err = gansmith("report", run.directory)
    assert (code, err) == (0, "") and f"report -> {run.directory / 'report.pdf'}" in out
    assert (run.directory / "report.pdf").is_file() and open_run(run.directory)
    for words, reason in (
        ((run.directory, "--out", "report.docx"), "does not end in one of .pdf, .html"),
        ((tmp_path,), "holds no run"),
        ((run.directory, "--out", "missing/report.pdf"), "there is no folder"),
    ):
        code, _, err = gansmith("report", *words)
        assert code == 2 and reason in err and len(err.splitlines()) == 1
