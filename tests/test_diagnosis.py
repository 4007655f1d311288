"""Training failures: what is called one, and what is not."""

import json
import os
import signal

import pytest
from conftest import train_all, wait_until

from gansmith.config import Config, resolve
from gansmith.data.images import ImageSpec
from gansmith.recipes import RECIPES
from gansmith.runs import create_run
from gansmith.training.diagnosis import FAILURES, Failure, at_the_end, diagnose, to_failure
from gansmith.training.inputs import load_training_data
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques

CONFIG = resolve("default", arguments={"images": 10_000, "batch_size": 10, "conditioning": "labels"})
HEALTHY = {
    "d_loss": 1.2, "g_loss": 0.9, "d_real": 0.6, "d_fake": 0.4, "diversity_within": 0.9, "diversity_across": 1.0,
    "classes_generated": 0.9, "copy_distance": 1.1, "g_grad_norm": 1.0, "d_grad_norm": 1.0,
}  # fmt: skip


def rows_with(count=100, *, since=50, **changes):
    """A log of that many lines, healthy up to one of them."""
    return [{"images_seen": 100 * (k + 1), **HEALTHY, **(changes if k >= since else {})} for k in range(count)]


def names(rows, scores=()):
    return [failure.name for failure in diagnose(rows, scores, CONFIG)]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("diverged", {"d_loss": 55.0}),
        ("diverged", {"g_loss": -300.0}),
        ("mode-collapse", {"diversity_within": 0.1}),
        ("missing-classes", {"classes_generated": 0.1}),
        ("missing-classes", {"diversity_across": 0.1, "classes_generated": None}),
        ("discriminator-wins", {"d_loss": 0.01}),
        ("discriminator-wins", {"d_real": 0.95, "d_fake": 0.1}),
        ("generator-wins", {"d_loss": 1.385}),
        ("generator-wins", {"d_loss": 1.5}),
        ("vanishing-gradient", {"g_grad_norm": 1e-5}),
        ("memorisation", {"copy_distance": 0.1}),
        ("memorisation", {"d_overfit": 1.1}),
        ("missing-classes", {"classes_in_data": 0.1}),
    ],
)
def test_a_signal_that_lasts_is_named_within_a_tenth_of_the_run(name, changes):
    assert names(rows_with(**changes)) == [name]
    named = [k for k in range(1, 101) if names(rows_with(k, **changes))]
    assert named == list(range(named[0], 101)) and 52 < named[0] <= 60
    assert names(rows_with(since=99, **changes)) == []  # one bad line is no failure
    (failure,) = diagnose(rows_with(**changes), [], CONFIG)
    assert failure.images_seen == 10_000 and "; likely " in failure.message and "; try " in failure.message


def test_labels_that_are_ignored_are_found_once_they_should_be_learnt():
    rows = [{**row, "label_accuracy": 0.1} for row in rows_with(since=0)]
    assert names(rows) == ["missing-classes"] and names(rows[:20]) == []
    assert "only 10% of generated images show the label" in diagnose(rows, [], CONFIG)[0].message


def test_a_healthy_log_and_a_short_one_show_nothing():
    assert names(rows_with()) == names([]) == names(rows_with(4, since=0, d_loss=99.0)) == []
    assert names([{"images_seen": 9_000, "kind": "failure", "failure": "x", "message": "y"}]) == []
    assert names([{**row, "g_grad_norm": None, "copy_distance": None} for row in rows_with()]) == []


def test_a_discriminator_with_flipped_labels_wins_by_flipped_scores():
    flipped = CONFIG.replace(label_flipping=1.0)
    for config, real, fake in ((flipped, 0.15, 0.85), (CONFIG, 0.85, 0.15)):
        assert [failure.name for failure in diagnose(rows_with(d_real=real, d_fake=fake), [], config)] == [
            "discriminator-wins"
        ]
        assert diagnose(rows_with(d_real=fake, d_fake=real), [], config) == []


def test_guessing_costs_what_no_answer_for_all_images_betters():
    least = CONFIG.replace(objective="least-squares")  # 1/2 (0.5 - 1)^2 + 1/2 (0.5)^2, not the 1/2 of answering 0
    for loss, found in ((0.25, ["generator-wins"]), (0.2, [])):
        assert [failure.name for failure in diagnose(rows_with(d_loss=loss), [], least)] == found


def test_a_score_that_stops_falling_is_stalled():
    falling = [{"images_seen": k, "validation_fd_ratio": 10.0 / k} for k in range(1, 13)]
    assert names(rows_with(), falling) == []
    assert names(rows_with(), falling[:6] + [{"images_seen": k, "validation_fd_ratio": 2.0} for k in range(7, 13)]) == [
        "stalled"
    ]
    assert names(rows_with(), falling[:3] + [{"images_seen": k, "validation_fd_ratio": 9.0} for k in range(4, 8)]) == []


@pytest.mark.parametrize(("growth", "named"), [(1.45, []), (1.55, ["diverged"])])
def test_weights_that_grow_in_the_first_steps_are_a_divergence(growth, named):
    rows = rows_with(10, since=99)
    rows[1]["weight_growth"] = growth
    assert names(rows) == named


def test_losses_without_a_scale_may_be_large():
    rows = rows_with(d_loss=-300.0, g_loss=500.0)
    assert diagnose(rows, [], CONFIG.replace(objective="wasserstein")) == []


def test_diagnose_says_how_a_run_stands(tiny, tmp_path, gansmith):
    config, data = load_training_data(tiny("mlp-small"))
    run = create_run(tmp_path / "run", config)
    child = os.fork()
    if child == 0:
        try:
            train_all(create_run(run.directory, config.replace(images=10**9)), data)
        finally:
            os._exit(0)
    try:
        wait_until(lambda: run.log and run.latest() is not None)
        assert "training now" in gansmith("diagnose", run.directory)[1]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    found = json.loads(gansmith("diagnose", run.directory, "--json")[1])
    assert (found["status"], found["failures"], found["rollbacks"]) == ("killed", {}, [])
    run.log_path.unlink()
    found = json.loads(gansmith("diagnose", run.directory, "--json")[1])
    assert found["images_seen"] == found["saved_images"] > 0
    assert "gansmith resume" in gansmith("diagnose", run.directory)[1]


def test_every_failure_has_a_cause_and_a_remedy():
    for name, kind in FAILURES.items():
        assert kind.cause and not kind.cause.endswith(".")
        assert None in kind.remedies.values()  # so that some are left whatever was chosen
        message = to_failure(name, 640, "it", Config()).message
        assert message.startswith(f"{name}: it after 640 images; likely {kind.cause}; try ") and message[-1] != "."


def test_remedies_leave_out_what_the_run_has():
    def remedies(**choices):
        return to_failure("mode-collapse", 640, "it", Config(**choices)).message.partition("; try ")[2]

    assert remedies() == "--r1-gamma 10 --r2-gamma 10, --minibatch-stddev 4, or lower g_lr and d_lr"
    assert remedies(minibatch_stddev=4) == "--r1-gamma 10 --r2-gamma 10 or lower g_lr and d_lr"
    assert remedies(minibatch_stddev=4, r1_gamma=10.0) == "lower g_lr and d_lr"
    assert remedies(latent_dim=1).startswith("a larger latent_dim, ")


def test_a_failure_says_how_it_stands_at_the_end():
    noted = [{"failure": name, "images_seen": 64, "message": f"{name}: then"} for name in ("a", "b", "not-finite")]
    found = [Failure("b", 640, "b: now"), Failure("c", 640, "c: now")]
    assert at_the_end(noted, found) == {
        "b": "b: now (first seen after 64 images)",
        "c": "c: now",
        "a": "a: then; at the end of the log no longer",
        "not-finite": "not-finite: then",
    }
    # After a divergence nothing else is looked for, so nothing is said to be over.
    diverged = {"failure": "diverged", "images_seen": 640, "message": "diverged: now"}
    assert at_the_end([*noted[:1], diverged], []) == {"a": "a: then", "diverged": "diverged: now"}
    assert at_the_end(noted[:1], [Failure("diverged", 640, "diverged: now")])["a"] == "a: then"


def test_no_remedy_is_a_flag_that_the_run_would_refuse():
    flags = {
        "--r1-gamma 10 --r2-gamma 10": {"r1_gamma": 10.0, "r2_gamma": 10.0},
        "a higher r1_gamma and r2_gamma": {"r1_gamma": 1.0, "r2_gamma": 1.0},
        "a higher r1_gamma": {"r1_gamma": 1.0},
        "--minibatch-stddev 4": {"minibatch_stddev": 4},
        "a relativistic objective": {"objective": "relativistic"},
        "the non-saturating or least-squares objective": {"objective": "non-saturating"},
    }
    for recipe in RECIPES:
        config = resolve(recipe, arguments={"g_width": 8, "d_width": 8, "batch_size": 8})
        config = config.replace(conditioning="labels") if config.conditioning == "auto" else config
        for kind in FAILURES.values():
            left = [remedy for remedy, is_left in kind.remedies.items() if is_left is None or is_left(config)]
            assert left
            for remedy in left:
                if remedy in flags:
                    changed = config.replace(**flags[remedy], d_loss_target=0.0)
                    build_techniques(changed, start_networks(changed, ImageSpec(28, 1, 10)).D)
