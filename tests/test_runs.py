"""The run directory: whole files, strict lines, one run a directory."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gansmith.config import resolve
from gansmith.runs import create_run, make_next_directory, next_directory, open_run, sweep
from gansmith.checkpoints import load_checkpoint, prune, save_checkpoint
from gansmith.files import read_metadata, save_tensors, to_json

CONFIG = resolve("mlp-small")


def save(run, images_seen, value=1.0):
    return save_checkpoint(
        run,
        images_seen,
        generator={"w": torch.full((2, 2), value)},
        generator_metadata={"b": "2", "a": "1"},
        state={"G.w": torch.full((2,), value)},
        counters={"images_seen": images_seen, "log_lines": 0},
    )


def test_numbers_that_json_lacks_become_null():
    assert json.loads(to_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
    }


def test_a_checkpoint_comes_back_and_equal_ones_have_equal_bytes(tmp_path):
    a, b = (save(create_run(tmp_path / name, CONFIG), 64) for name in "ab")
    for file in ("generator.safetensors", "state.safetensors", "state.json"):
        assert (a / file).read_bytes() == (b / file).read_bytes()
    generator, state, counters = load_checkpoint(a)
    assert generator["w"].tolist() == [[1, 1], [1, 1]] and state["G.w"].tolist() == [1, 1]
    assert counters["images_seen"] == 64
    assert read_metadata(a / "generator.safetensors") == {"a": "1", "b": "2"}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, damage):
    run = create_run(tmp_path / "run", CONFIG)
    older, newer = save(run, 64), save(run, 128, 2.0)
    assert run.latest() == newer
    file = newer / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "flip":
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-3])
    elif damage == "remove":
        file.unlink()
    else:
        (newer / "state.json").write_text("{")
    assert run.latest() == older and run.checkpoints() == [older]
    assert "damaged" in caplog.text


def test_unfinished_writes_are_invisible(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    (run.directory / "checkpoints" / ".partial-000000064").mkdir()
    assert run.latest() is None
    assert save(run, 64) == run.latest()


def test_logs_are_cut_back_and_broken_lines_passed_over(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    run.append(run.log_path, {"images_seen": 1})
    run.append(run.log_path, {"images_seen": 2})
    with run.log_path.open("a") as file:
        file.write('{"images_seen": 3, "d_lo')
    assert run.log == [{"images_seen": 1}, {"images_seen": 2}]
    assert "broken line" in caplog.text
    sweep(run, 1)
    assert run.log_path.read_text() == '{"images_seen": 1}\n'


def test_a_flipped_bit_in_a_log_costs_its_line_alone(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    for images_seen in (64, 128, 192):
        run.append(run.log_path, {"images_seen": images_seen, "d_loss": 1.0})
    content = bytearray(run.log_path.read_bytes())
    content[5] ^= 0x80  # no longer text
    content[content.index(b"images_seen", 50)] ^= 0x01  # another key
    run.log_path.write_bytes(content)
    sweep(run, 192)
    assert [row["images_seen"] for row in run.log] == [128] and "broken line" in caplog.text


def test_milestones_are_the_first_past_each_multiple(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    for images_seen in range(30, 241, 30):
        save(run, images_seen)
        prune(run, newest=images_seen, keep_last=1, keep_every=100)
    assert [int(path.name) for path in run.checkpoints()] == [120, 210, 240]


def test_damaged_checkpoints_do_not_push_out_whole_ones(tmp_path):
    run = create_run(tmp_path / "run", CONFIG)
    for images_seen in (125, 250):
        save(run, images_seen)
    (run.directory / "checkpoints" / "000000250" / "state.json").write_text("{}")
    save(run, 160)
    prune(run, newest=160, keep_last=1, keep_every=0)
    assert run.latest().name == "000000160"


def test_a_directory_holds_one_run(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    with pytest.raises(ValueError, match="batch 64 -> 32"):
        create_run(tmp_path / "run", CONFIG.replace(batch_size=32))
    longer = create_run(tmp_path / "run", CONFIG.replace(images=20_000_000, log_every=5))
    assert (longer.config.images, longer.config.schedule_images) == (20_000_000, CONFIG.images)
    again = create_run(tmp_path / "run", CONFIG.replace(images=30_000_000))
    assert again.config.schedule_images == CONFIG.images


def test_places_that_cannot_hold_a_run_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        create_run(tmp_path / "file", CONFIG)
    with pytest.raises(ValueError, match="cannot be written"):
        create_run(tmp_path / "file" / "below", CONFIG)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds no run"):
        create_run(tmp_path / "other", CONFIG)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        open_run(tmp_path / "other")


def test_directories_are_numbered_onwards(tmp_path):
    assert next_directory(tmp_path, CONFIG).name == "0001-mlp-small-mnist"
    (tmp_path / "0041-x").mkdir()
    assert next_directory(tmp_path, CONFIG).name == "0042-mlp-small-mnist"


def test_a_number_is_taken_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_next_directory(tmp_path / "runs", CONFIG), range(16)))
    assert len(set(made)) == 16 and all(path.is_dir() for path in made)


def test_a_line_after_one_that_was_cut_off_is_not_lost(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    run.log_path.write_text('{"images_seen": 1}\n{"images_se')
    assert run.append(run.log_path, {"images_seen": 3, "d_grad_norm": math.inf}) == {"images_seen": 3, "d_grad_norm": None}
    assert run.log == [{"images_seen": 1}, {"images_seen": 3, "d_grad_norm": None}]
    assert "broken line" in caplog.text


def test_lines_and_facts_of_wrong_types_are_passed_over(tmp_path, caplog):
    run = create_run(tmp_path / "run", CONFIG)
    wrong = ({"d_loss": "x"}, {"kind": "rollback"}, {"kind": ["failure"], "g_loss": {}}, {"kind": "failure"})
    for row in ({"d_loss": 1.5}, *wrong, {"d_loss": None}):
        run.append(run.log_path, {"images_seen": 10, **row})
    assert [row["d_loss"] for row in run.log] == [1.5, None] and caplog.text.count("broken line") == len(wrong)
    run.append(run.metrics_path, {"images_seen": 10})
    assert run.validation_scores() == [] and len(run.metrics) == 1
    (run.directory / "run.json").write_text('{"status": ["x"], "starts": 5, "rollbacks": 3, "python": "3.11"}')
    assert run.facts() == {"python": "3.11"} and "status, starts, rollbacks" in caplog.text


def test_schedules_that_a_run_cannot_take_up_are_refused(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    for name in ("schedule_images", "planned_images"):
        with pytest.raises(ValueError, match=f"{name} is 5000, but"):
            create_run(tmp_path / "run", CONFIG.replace(**{name: 5000}))


def test_a_foreign_file_is_not_a_generator(tmp_path):
    (tmp_path / "junk").write_bytes(b"\x80\x04junk")
    save_tensors(tmp_path / "bare", {"w": torch.ones(1)}, {})
    for name in ("junk", "bare"):
        with pytest.raises(ValueError, match="not a Gansmith generator"):
            read_metadata(tmp_path / name)
