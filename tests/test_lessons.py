"""Each lesson shows what it says, and not before it was asked to."""

import json
import operator

import pytest
import torch

from gansmith.config import FIELDS, resolve
from gansmith.errors import ConfigError
from gansmith.lessons import toy
from gansmith.lessons.table import LESSONS, OBJECTIVES, RESTARTS, START
from gansmith.training import losses

SIGNS = {"<=": operator.le, ">=": operator.ge}
LOOK_EVERY = 20  # steps between two looks, as a page has


def is_seen(pair, step):
    found = toy.measure(pair)
    return all(SIGNS[sign](found[name], limit) for name, sign, limit in step.checks)


def take(pair, step):
    """Do what a step's button does, then train until the effect is seen; gives the pair and the steps that took."""
    pair = toy.start(step.choices) if step.restarts else toy.change(pair, step.choices)
    for taken in range(0, step.within + 1, LOOK_EVERY):
        if taken and is_seen(pair, step):
            return pair, taken
        toy.advance(pair, LOOK_EVERY)
        assert not pair.failure
    pytest.fail(f"{step.do!r} did not show {step.checks} within {step.within} steps: {toy.measure(pair)}")


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_each_lesson_reaches_its_effects(lesson):
    pair = toy.start()
    for step in lesson.steps:
        before = toy.start(step.choices) if step.restarts else pair
        assert not is_seen(before, step), f"{step.do!r}: seen before it was done"
        pair, _ = take(pair, step)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["collapse", "r1", "overfitting"])
def test_what_is_not_treated_stays_ill(name):
    """After as many steps as the cure took, the effect of the cure is not there without it."""
    *before, last = next(lesson for lesson in LESSONS if lesson.name == name).steps
    pairs = [toy.start(), toy.start()]
    for k in range(2):
        for step in before:
            pairs[k], _ = take(pairs[k], step)
    _, taken = take(pairs[0], last)
    toy.advance(pairs[1], taken)
    assert not is_seen(pairs[1], last)


def test_texts_are_short_and_name_what_there_is():
    assert len(LESSONS) == 8 and len({lesson.name for lesson in LESSONS}) == 8
    measures = toy.measure(toy.start())
    for lesson in LESSONS:
        assert lesson.steps[0].restarts, "a lesson begins from scratch, whatever was tried before"
        resolve(lesson.digits[0], arguments=lesson.digits[1])
        for step in lesson.steps:
            assert len(step.text.split()) <= 60 and len(step.see.split()) <= 30
            assert step.choices.keys() <= START.keys() and {name for name, _, _ in step.checks} <= measures.keys()
    assert set(START) - {"points"} <= FIELDS.keys() and set(RESTARTS) <= START.keys()
    assert set(OBJECTIVES) <= losses.OBJECTIVES.keys()


def test_the_same_seed_and_choices_give_the_same_frame():
    frames = []
    for seed, parts in ((3, (7, 5)), (3, (12,)), (4, (12,))):
        pair = toy.start({"ema": 0.1}, seed=seed)
        for steps in parts:
            toy.advance(pair, steps)
        frames.append(json.dumps(toy.frame(pair)))
    assert frames[0] == frames[1] != frames[2]


def test_a_frame_shows_the_pair():
    pair = toy.start({"ema": 0.1, "conditioning": "labels"})
    toy.advance(pair, 3)
    shown = toy.frame(pair, field_of=2)
    assert shown["steps"] == 3 and len(shown["points"]) == len(shown["average"]) == toy.SHOWN
    field = torch.tensor(shown["field"]) / 100
    with torch.no_grad():  # row 5 from below, column 30
        place = torch.tensor([(30.5) / 20 - 1, (5.5) / 20 - 1]).view(1, 2, 1, 1)
        expected = 2 * pair.networks.D(place, torch.tensor([2])).sigmoid() - 1
    assert field[5, 30].item() == pytest.approx(expected.item(), abs=0.006)
    assert shown["field"] != toy.frame(pair, field_of=3)["field"]
    # along its arrow a point's loss falls, against it the loss rises
    x, y, dx, dy = (torch.tensor(shown["arrows"]).T[k] for k in range(4))
    points, arrows = torch.stack([x, y], 1)[:, :, None, None], torch.stack([dx, dy], 1)[:, :, None, None]
    labels = torch.tensor(shown["labels"])[: len(points)]
    with torch.no_grad():
        cost = [torch.nn.functional.softplus(-pair.networks.D(points + s * arrows, labels)) for s in (-0.01, 0.01)]
    assert (cost[1] < cost[0]).double().mean() > 0.95


def test_arrows_of_a_relativistic_loss_compare_with_real_points_under_their_own_labels():
    pair = toy.start({"objective": "relativistic", "conditioning": "labels"})
    toy.advance(pair, 3)
    seen = []
    score = pair.networks.D.forward

    def noting(points, y):
        seen.append((points.detach(), y))
        return score(points, y)

    pair.networks.D.forward = noting
    toy._gradients(pair, torch.zeros(40, 2), torch.zeros(40, dtype=torch.int64))
    points, y = seen[0]
    nearest = torch.cdist(points.flatten(1), toy.centres()).argmin(1)
    assert torch.equal(nearest, y)


def test_choices_change_while_it_trains_or_start_it_again():
    pair = toy.start()
    toy.advance(pair, 5)
    before = [p.clone() for p in pair.networks.G.parameters()]
    assert toy.change(pair, {"g_lr": 0.0, "objective": "hinge"}) is pair
    toy.advance(pair, 5)
    assert all(torch.equal(a, b) for a, b in zip(before, pair.networks.G.parameters(), strict=True))
    assert pair.numbers["d_loss"] == pytest.approx(toy.measure(pair)["d_loss"]) and pair.steps == 10
    assert toy.change(pair, {"points": 16}) is pair and len(pair.train[1]) == 16
    other = toy.change(pair, {"conditioning": "labels"})
    assert other is not pair and other.steps == 0
    assert len(other.train[1]) == 16 and other.choices["objective"] == "hinge"


@pytest.mark.parametrize(
    "choices, why",
    [
        ({"lr": 1}, "no choice 'lr' here"),
        ({"points": 1}, "points is 1"),
        ({"points": 10.5}, "points is 10.5"),
        ({"conditioning": "clusters"}, "choose none or labels"),
        ({"d_steps": 99}, "d_steps is 99"),
        ({"d_steps": [1]}, "d_steps is"),
        ({"g_lr": {}}, "g_lr"),
        ({"g_lr": -1.0}, "g_lr"),
        ({"objective": "unheard-of"}, "unheard-of"),
        ({"objective": "wasserstein"}, "Lipschitz|penalty"),
    ],
)
def test_other_choices_are_refused_and_change_nothing(choices, why):
    pair = toy.start()
    for refuse in (toy.start, lambda given: toy.change(pair, given)):
        with pytest.raises(ConfigError, match=why):
            refuse(choices)
    assert pair.choices == START and pair.config.objective == "non-saturating"


def test_a_loss_that_is_no_number_stops_it_with_a_sentence():
    pair = toy.start()
    with torch.no_grad():
        next(pair.networks.G.parameters()).fill_(float("nan"))
    toy.advance(pair, 3)
    assert pair.steps == 0 and pair.failure.startswith("training stopped: ")
    assert json.loads(json.dumps(toy.frame(pair), allow_nan=False))["failure"] == pair.failure
