"""Curves drawn from a log, and grids of what a generator knows."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gansmith.data.on_disk import open_array
from gansmith.pictures.plots import _drawable, _mark_failures, neighbours, plot_curves, smoothed, with_row_names
from gansmith.runs import create_run


def colours(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def has(path, hexadecimal):
    wanted = [int(hexadecimal[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((colours(path) == wanted).all(1).any())


def drawn(run, name="loss.png"):
    plot_curves(run, run.directory / name)
    return run.directory / name


@pytest.fixture
def run(tmp_path, tiny):
    made = create_run(tmp_path / "run", tiny())
    for k in range(40):
        made.append(made.log_path, {"images_seen": 32 * k, "d_loss": 1 + k % 2, "g_loss": 2 - 0.02 * k})
    return made


def test_smoothing_keeps_lines_and_averages_noise():
    line = [2.0 * k for k in range(50)]
    assert smoothed(line, share=0.2) == pytest.approx(line)
    inner = smoothed([0.0, 1.0] * 50, share=0.2)[20:-20]
    assert all(abs(value - 0.5) < 0.05 for value in inner)
    assert smoothed([3.0]) == [3.0] and smoothed([]) == []


def test_both_losses_are_drawn_and_equal_runs_have_equal_pictures(run):
    path = drawn(run)
    assert has(path, "#0072B2") and has(path, "#D55E00") and not has(path, "#CC79A7")
    first = path.read_bytes()
    assert drawn(run).read_bytes() == first


def test_a_panel_of_scores_appears_with_the_first_score(run):
    with Image.open(drawn(run)) as without:
        low = without.height
    run.append(run.metrics_path, {"images_seen": 640, "validation_fd_ratio": 3.5})
    with Image.open(drawn(run)) as scored:
        assert scored.height > low


def test_training_failures_are_marked_and_gaps_left_out(run):
    run.append(run.log_path, {"images_seen": 640, "kind": "failure", "failure": "mode-collapse", "message": "x"})
    run.append(run.log_path, {"images_seen": 1280, "d_loss": float("nan"), "g_loss": 1.0})
    assert has(drawn(run), "#CC79A7")


@pytest.mark.parametrize("kind", [".svg", ".pdf"])
def test_curves_for_print_carry_no_date(run, kind):
    first = drawn(run, f"a{kind}").read_bytes()
    assert drawn(run, f"b{kind}").read_bytes() == first and b"Date>20" not in first


def test_an_empty_log_still_gives_a_picture(tmp_path, tiny):
    assert drawn(create_run(tmp_path / "run", tiny())).is_file()


def test_names_of_failures_close_together_do_not_overlap():
    figure = Figure(figsize=(7, 4), dpi=120)
    axes = figure.subplots()
    axes.set_xlim(0, 10)
    seen = (3_200, 3_300, 3_400, 3_500, 6_400)
    _mark_failures([axes], [{"kind": "failure", "images_seen": k, "failure": "discriminator-wins"} for k in seen])
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5 and not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_class_name_without_letters_in_the_font_is_a_number():
    assert [_drawable(name, 3) for name in ("cat", "\u043a\u043e\u0442", "\u732b")] == [
        "cat",
        "\u043a\u043e\u0442",
        "class 3",
    ]


def test_neighbours_follow_their_sample_nearest_first():
    training = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1) * 40
    shown = neighbours(torch.tensor([[[[85]]], [[[0]]]], dtype=torch.uint8), training, count=2).flatten().tolist()
    assert shown == [85, 80, 120, 0, 0, 40]


def test_neighbours_are_found_on_disk_too(tmp_path):
    training = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * 40
    np.save(tmp_path / "x.npy", training)
    samples = torch.tensor([[[[85]]], [[[0]]]], dtype=torch.uint8)
    expected = neighbours(samples, torch.from_numpy(training), count=3)
    assert torch.equal(neighbours(samples, open_array(tmp_path / "x.npy"), count=3), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_rows_have_their_names_at_the_left_and_keep_their_pixels(mode):
    tiles = Image.effect_noise((90, 120), 50).convert(mode)
    shown = with_row_names(tiles, ["cat", "a much longer name of a class", "\u00c9"])
    margin = shown.width - tiles.width
    assert shown.mode == mode and shown.height == 120 and margin > 100
    assert np.array_equal(np.asarray(shown)[:, margin:], np.asarray(tiles))
    names = np.asarray(shown.convert("L"))[:, :margin]
    assert all((names[40 * row : 40 * row + 40] < 128).any() for row in range(3))
    assert (names[38:42] == 255).all()  # no name reaches into another row


def test_endings_in_capitals_are_formats_too(tiny, run_training, tmp_path):
    run = run_training(tiny("mlp-small"), "run")
    plot_curves(run, tmp_path / "loss.PNG")
    assert (tmp_path / "loss.PNG").read_bytes().startswith(b"\x89PNG")
