"""Boards and ablations: their tables of known trials, and the commands from end to end."""

import json
import math
import re
import resource
import shutil
from pathlib import Path

import pytest
from conftest import TINY
from PIL import Image

from gansmith.benchmarks import boards, trials
from gansmith.benchmarks.ablation import COMPLETE, compare, neutral_fields, run_ablation
from gansmith.benchmarks.ablation import to_markdown as ablation_to_markdown
from gansmith.errors import ConfigError, GansmithError, RunError
from gansmith.recipes import RECIPES
from gansmith.workers import LocalPool


def trial(recipe, seed, ratio, **more):
    facts = {"recognised": 0.9, "rarest_class": 0.8, "modes": 10.0, "images": 1000, "images_per_s": 50.0}
    run = f"runs/{recipe}-seed-{seed}"
    return {"recipe": recipe, "seed": seed, "validation_fd_ratio": ratio, "run": run, **facts, **more}


def test_rows_are_means_over_seeds_and_the_best_is_first():
    rows = boards.rank(
        [trial("slow", 0, 9.0), trial("good", 0, 2.0), trial("good", 1, 4.0, recognised=0.7), trial("slow", 1, 11.0)]
    )
    assert [(row["recipe"], row["validation_fd_ratio"]) for row in rows] == [("good", 3.0), ("slow", 10.0)]
    assert rows[0]["spread"] == pytest.approx(math.sqrt(2))
    assert rows[0]["recognised"] == pytest.approx(0.8)
    assert boards.rank([trial("once", 0, 5.0)])[0]["spread"] is None


def test_a_recipe_that_failed_comes_last_and_says_so():
    fell = {"recipe": "fell", "seed": 0, "run": "runs/fell-seed-0", "validation_fd_ratio": None}
    lost = {"recipe": "half", "seed": 1, "run": "runs/half-seed-1", "validation_fd_ratio": None}
    half = [trial("half", 0, 1.0), lost]
    rows = boards.rank([fell, *half, trial("whole", 0, 50.0)])
    assert [row["recipe"] for row in rows] == ["whole", "half", "fell"]
    board = {"settings": {"minutes": 1.0}, "rows": rows}
    table = boards.to_markdown(board)
    assert "| `fell` | 1 of 1 failed |" in table and "| `half` | 1.00, 1 of 2 failed | 90.0% |" in table
    assert "![samples of fell]" not in table


@pytest.mark.slow
def test_only_a_training_failure_counts_as_failed(digit_dir, tmp_path):
    flags, pool = {**TINY, "data_dir": digit_dir}, LocalPool()

    def train(name, **changes):
        task = trials.trial_task(name, tmp_path / name, "mlp-small", {**flags, **changes}, pool)
        return list(trials.train_trials({name: task}, pool))

    assert train("fell", g_lr=1e17, d_lr=1e17) == [("fell", False)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))  # as on a full disk
    try:
        with pytest.raises(trials.Interrupted):
            train("full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_technique_is_compared_with_the_same_seeds():
    pairs = {COMPLETE: (2.0, 8.0), "ema": (4.0, 16.0), "r1_gamma": (2.0, None)}
    rows = compare(
        [
            {"without": name, "seed": seed, "validation_fd_ratio": r}
            for name, rs in pairs.items()
            for seed, r in enumerate(rs)
        ]
    )
    by = {row["without"]: row for row in rows}
    # Twice as bad with either seed: no scatter of the quotient, though the seeds differ fourfold.
    assert [by["ema"][key] for key in ("worse", "low", "high")] == pytest.approx([2.0, 2.0, 2.0])
    assert (by["r1_gamma"]["worse"], by["r1_gamma"]["failed"], by[COMPLETE]["worse"]) == (None, 1, None)
    text = ablation_to_markdown({"settings": {"recipe": "x", "images": 9}, "rows": rows})
    assert "| `ema` | 10.00 +- 8.49 | 2.00 (2.00 to 2.00) | 2 |" in text
    assert "| `r1_gamma` | 2.00 |  | 2, 1 failed |" in text


def test_intervals_are_student_s_on_logarithms():
    ratios = {COMPLETE: (1.0, 1.0, 1.0), "ema": (1.0, math.e, math.e**2)}
    rows = compare(
        [{"without": n, "seed": s, "validation_fd_ratio": r} for n, rs in ratios.items() for s, r in enumerate(rs)]
    )
    reach = 4.302653 / math.sqrt(3)  # t for two degrees of freedom, times the standard error
    expected = [math.exp(1), math.exp(1 - reach), math.exp(1 + reach)]
    assert [rows[1][key] for key in ("worse", "low", "high")] == pytest.approx(expected, rel=1e-6)


def test_only_what_a_recipe_uses_can_be_taken_out():
    without = neutral_fields("default", "r1_gamma+r2_gamma+d_loss_target", {})
    assert without == {"r1_gamma": 0.0, "r2_gamma": 0.0, "d_loss_target": 0.0}
    with pytest.raises(ConfigError, match="'none' in mlp-small already.*omit it"):
        neutral_fields("mlp-small", "augment", {})
    with pytest.raises(ConfigError, match="no field 'penalty_start_facto'; did you mean 'penalty_start_factor'"):
        neutral_fields("default", "r1_gamma+penalty_start_facto", {})
    with pytest.raises(ConfigError, match="wasserstein objective is unbounded"):
        neutral_fields("wgan-gp", "gradient_penalty", {})


@pytest.fixture
def _short_trials(monkeypatch):
    """A trial's chores, not its steps, are what takes time at these lengths."""
    for name in ("sample", "evaluate", "save"):
        monkeypatch.setenv(f"GANSMITH_{name.upper()}_EVERY", "128")
    monkeypatch.setenv("GANSMITH_THREADS", "1")
    monkeypatch.setattr(trials, "SAMPLES", 200)


@pytest.mark.slow
@pytest.mark.usefixtures("_short_trials")
def test_a_board_is_trained_scored_drawn_and_not_trained_again(gansmith, digit_dir, tmp_path):
    given = (
        "bench",
        "recipes",
        "mlp-small",
        "--images",
        "128",
        "--seeds",
        "1",
        "--data-dir",
        digit_dir,
        "--out",
        "board",
    )
    code, out, err = gansmith(*given)
    assert code == 0 and out.splitlines()[1].startswith("mlp-small  ") and "board.png" in err
    assert "| `mlp-small` |" in (tmp_path / "board/board.md").read_text()
    first = (tmp_path / "board/runs/mlp-small-seed-0/run.json").read_bytes()
    code, out, err = gansmith(*given, "--json")
    assert code == 0 and "seed 0" not in err
    assert (tmp_path / "board/runs/mlp-small-seed-0/run.json").read_bytes() == first
    board = json.loads(out)
    assert board == json.loads((tmp_path / "board/board.json").read_text())
    (row,) = board["rows"]
    assert (
        row["recipe"] == "mlp-small"
        and row["validation_fd_ratio"] > 1
        and 0 <= row["recognised"] <= 1
        and row["images"] == 128
    )
    with Image.open(tmp_path / "board/strips/mlp-small.png") as strip:
        assert strip.size == (280, 28)
    for name in ("board.png", "curves.png", "board.md"):
        assert (tmp_path / "board" / name).stat().st_size
    (tmp_path / "board/curves.png").unlink()  # as where it was interrupted when it drew
    assert gansmith(*given)[0] == 0 and (tmp_path / "board/curves.png").is_file()
    code, _, err = gansmith("bench", "recipes", "mlp-small", "--images", "256", "--out", "board")
    assert code == 2 and "another place" in err
    shutil.rmtree("board/runs")  # to save space; the board is extended all the same
    code, _, err = gansmith(*("2" if word == "1" else word for word in given))
    assert code == 0 and "seed 1" in err, err
    assert len(json.loads((tmp_path / "board/board.json").read_text())["trials"]) == 2


def begin_run(folder):
    (folder / "runs" / "begun").mkdir(parents=True)
    (folder / "runs" / "begun" / "config.toml").touch()


def test_a_table_keeps_its_settings_from_its_first_run_on(tmp_path):
    """Else a run that was begun with another length would be compared with those of this one."""
    path, given = tmp_path / "new" / "board.json", {"what": "a board", "data_sha256": "a"}
    trials.open_table(path, {"minutes": 1}, **given)
    assert trials.open_table(path, {"minutes": 10}, **given)["settings"] == {"minutes": 10}  # nothing was trained
    begin_run(path.parent)
    with pytest.raises(RunError, match="holds a board with {'minutes': 10}, not {'minutes': 1}; give another place"):
        trials.open_table(path, {"minutes": 1}, **given)


def test_a_run_on_other_images_is_not_scored(tiny, run_training):
    run = run_training(tiny("mlp-small"), "run")
    with pytest.raises(GansmithError, match="run was trained on other images of this name than are here"):
        trials.score_trial(run.directory, "another")


def test_a_board_does_not_go_on_with_other_images_of_the_same_name(tmp_path):
    board = {"settings": {"images": 128}, "data_sha256": "all of them", "trials": []}
    (tmp_path / "board.json").write_text(json.dumps(board))
    begin_run(tmp_path)
    given = (tmp_path / "board.json", {"images": 128})
    assert trials.open_table(*given, what="a board", data_sha256="all of them") == board
    with pytest.raises(RunError, match="holds a board on images .* another place"):
        trials.open_table(*given, what="a board", data_sha256="a few")


def test_an_ablation_does_not_either(digit_dir, tmp_path):
    settings = {"recipe": "mlp-keras", "images": 128, "data": "mnist", "data_dir": str(digit_dir)}
    held = {"settings": settings, "data_sha256": "all of them", "trials": []}
    (tmp_path / "ablation.json").write_text(json.dumps(held))
    begin_run(tmp_path)
    with pytest.raises(RunError, match="holds an ablation on images .* another place"):
        run_ablation(
            tmp_path,
            "mlp-keras",
            ["weight_init+label_smoothing"],
            seeds=2,
            length={"images": 128},
            choices={"data": "mnist", "data_dir": str(digit_dir)},
        )
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["begun"]


@pytest.mark.slow
@pytest.mark.usefixtures("_short_trials")
def test_settings_of_the_environment_belong_to_a_board(gansmith, digit_dir, monkeypatch):
    monkeypatch.setenv("GANSMITH_G_WIDTH", "16")
    monkeypatch.setenv("GANSMITH_SIZE", "20")
    given = ("bench", "recipes", "mlp-small", "--images", "128", "--seeds", "1", "--data-dir", digit_dir, "--json")
    code, out, _ = gansmith(*given, "--out", "board")
    board = json.loads(out)
    assert code == 0 and board["rows"][0]["validation_fd_ratio"] > 1
    assert board["settings"] == {"images": 128, "data": "mnist", "data_dir": str(digit_dir), "g_width": 16, "size": 20}
    monkeypatch.setenv("GANSMITH_G_WIDTH", "32")
    code, _, err = gansmith(*given, "--out", "board")
    assert code == 2 and "'g_width': 16" in err and "another place" in err


@pytest.mark.slow
@pytest.mark.usefixtures("_short_trials")
def test_a_board_goes_on_with_what_it_lacks(gansmith, digit_dir, tmp_path):
    given = ("--images", "128", "--seeds", "1", "--data-dir", digit_dir, "--out", "board")
    gansmith("bench", "recipes", "mlp-small", *given)
    code, out, err = gansmith("bench", "recipes", "mlp-small", "vanilla-cs231n", *given, "--json")
    assert code == 0 and "mlp-small, seed" not in err and "vanilla-cs231n, seed 0" in err
    assert {row["recipe"] for row in json.loads(out)["rows"]} == {"mlp-small", "vanilla-cs231n"}


@pytest.mark.slow
@pytest.mark.usefixtures("_short_trials")
def test_an_ablation_compares_both_with_the_same_seeds(gansmith, digit_dir, tmp_path):
    given = ("--images", "128", "--seeds", "2", "--data-dir", digit_dir, "--out", "ablation", "--json")
    code, out, _ = gansmith("ablate", "mlp-keras", "--without", "weight_init+label_smoothing", *given)
    rows = json.loads(out)["rows"]
    assert code == 0 and [row["without"] for row in rows] == [COMPLETE, "weight_init+label_smoothing"]
    assert rows[1]["low"] <= rows[1]["worse"] <= rows[1]["high"]
    runs = sorted(path.name for path in (tmp_path / "ablation/runs").iterdir())
    without = "weight_init.label_smoothing"
    assert runs == ["complete-seed-0", "complete-seed-1", f"{without}-seed-0", f"{without}-seed-1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "recipes", "nothing"], "no recipe 'nothing'"),
        (["bench", "recipes", "--minutes", "1", "--images", "5k"], "give one of them"),
        (["bench", "recipes", "--minutes", "0"], "must be more than 0"),
        (["bench", "recipes", "--seeds", "0"], "must be 1 or more"),
        (["ablate", "default", "--without", "r1_gamma", "--seeds", "1"], "2 or more"),
        (["ablate", "default", "--without", "r1"], "here it is r1_gamma"),
        (["ablate", "mlp-small", "--without", "augment"], "nothing to take out"),
    ],
)
def test_requests_that_make_no_sense_train_nothing(gansmith, tmp_path, words, message):
    code, _, err = gansmith(*words)
    assert code == 2 and message in err
    assert not list(tmp_path.glob("runs/*"))


def test_the_page_of_recipes_names_every_row():
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    table = [line for line in page.partition("## Ranking them")[0].splitlines() if line.startswith("| `")]
    named = [name for line in table for name in re.findall(r"`([\w-]+)`", line.split("|")[1])]
    assert sorted(named) == sorted(RECIPES)
