"""Films and walks, read back by the libraries that play them."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gansmith.errors import GansmithError, NotFoundError
from gansmith.pictures import animations
from gansmith.pictures.animations import film_frames, write_film
from gansmith.runs import create_run

SHADES = (0, 90, 90, 250)  # two equal neighbours: their time must not be lost


@pytest.fixture
def run(tmp_path, tiny):
    made = create_run(tmp_path / "run", tiny(images=300))
    for k, shade in enumerate(SHADES):
        Image.new("L", (56, 28), shade).save(made.samples_dir / f"{100 * k:09d}.png")
    for stray in (".partial-000000400.png", "mine.png"):  # of a kill, and of a person
        Image.new("L", (56, 28)).save(made.samples_dir / stray)
    return made


def played(path):
    """(shade of the first pixel, milliseconds) of every frame."""
    with Image.open(path) as film:
        return [
            (np.asarray(frame.convert("RGB"))[0, 0, 0].item(), frame.info["duration"])
            for frame in ImageSequence.Iterator(film)
        ]


def test_frames_say_how_far_the_run_was(run):
    frames = film_frames(run)
    assert len(frames) == 4 and len({frame.size for frame in frames}) == 1
    bar = [int((np.asarray(frame)[-1] == (0x56, 0xB4, 0xE9)).all(1).sum()) for frame in frames]
    width = frames[0].width
    assert bar == pytest.approx([0, width / 3, 2 * width / 3, width], abs=1)
    assert not np.array_equal(np.asarray(frames[1]), np.asarray(frames[2]))  # the caption differs


@pytest.mark.parametrize("kind", [".gif", ".webp"])
def test_equal_frames_keep_their_time(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), (shade, shade, shade)) for shade in SHADES]
    write_film(frames, tmp_path / f"film{kind}", frame_ms=100, hold_ms=500)
    shown = played(tmp_path / f"film{kind}")
    time = {shade: sum(ms for seen, ms in shown if abs(seen - shade) < 4) for shade in set(SHADES)}
    assert time == {0: 100, 90: 200, 250: 500}


def test_mp4_lasts_as_long_and_has_even_sides(tmp_path):
    av = pytest.importorskip("av")
    frames = [Image.new("RGB", (57, 29), (shade, shade, shade)) for shade in SHADES]
    write_film(frames, tmp_path / "film.mp4", frame_ms=100, hold_ms=500)
    with av.open(str(tmp_path / "film.mp4")) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert container.duration / 1e6 == pytest.approx(0.8, abs=0.06)
    assert len(pictures) == 40 and pictures[0].shape == (30, 58)
    assert [round(float(p[:28, :56].mean())) for p in (pictures[4], pictures[5], pictures[-1])] == pytest.approx(
        [0, 90, 250], abs=6
    )


def test_a_run_without_pictures_and_unknown_kinds_are_refused(run, tmp_path, tiny):
    with pytest.raises(NotFoundError, match="no pictures"):
        film_frames(create_run(tmp_path / "new", tiny()))
    with pytest.raises(GansmithError, match=r"\.avi does not end in one of \.gif, \.webp, \.mp4"):
        write_film(film_frames(run), tmp_path / "x.avi")


@pytest.mark.slow
def test_film_walk_and_plot_by_command(gansmith, run_training, tiny, digit_dir):
    run = run_training(tiny(conditioning="labels"))
    made = run.directory
    for words, name in (
        (("film", made), made / "film.gif"),
        (("film", made, "--out", made / "FILM.WEBP"), made / "FILM.WEBP"),
        (("plot", made), made / "loss.png"),
        (("plot", made, "classes"), made / "classes.png"),
        (("plot", made, "neighbours"), made / "neighbours.png"),
        (("walk", made, "--steps", 3, "--out", made / "w.webp"), made / "w.webp"),
        (("walk", made, "--classes", "0-9", "--steps", 2, "--out", made / "w.png"), made / "w.png"),
    ):
        code, out, err = gansmith(*words)
        assert (code, err) == (0, "") and str(name) in out and name.is_file()
    with Image.open(made / "w.webp") as walk:
        assert walk.n_frames == 12
    for words, reason in (
        (("film", made, "--out", "x.avi"), "does not end in"),
        (("film", made, "--frame-ms", 5), "frame_ms is 5"),
        (("walk", made, "--steps", 1), "steps is 1"),
        (("walk", made, "--seeds", "4"), "give two or more"),
        (("walk", made, "--classes", "12,99"), "no label 12"),
        (("plot", made, "classes", "--out", "x.pdf"), "does not end in"),
        (("plot", made.parent), "holds no run"),
    ):
        code, _, err = gansmith(*words)
        assert code == 2 and reason in err and len(err.splitlines()) == 1


def test_a_film_of_very_many_grids_leaves_some_out_and_ends_with_the_newest(run, monkeypatch):
    monkeypatch.setattr(animations, "MAX_FRAMES", 2)
    monkeypatch.setattr(animations, "MAX_PX", 100)
    whole = len(run.grids())
    frames = film_frames(run)
    assert whole > 2 and len(frames) <= 2 and all(frame.width <= 100 for frame in frames)
    last = run.grids()[-1][0] / run.config.images * frames[-1].width
    assert frames[-1].getpixel((max(0, round(last) - 2), frames[-1].height - 1)) == (0x56, 0xB4, 0xE9)


def test_equal_frames_for_longer_than_a_gif_counts_keep_their_time(tmp_path):
    write_film([Image.new("RGB", (8, 8))] * 100, tmp_path / "a.gif", frame_ms=10_000, hold_ms=10_000)
    with Image.open(tmp_path / "a.gif") as film:
        times = []
        for k in range(film.n_frames):
            film.seek(k)
            times.append(film.info["duration"])
    assert sum(times) == 1_000_000 and max(times) <= 655_350
