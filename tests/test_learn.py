"""The page Learn: pairs that the worker trains, a frame for each request."""

import json

import pytest
from test_web import Server

from gansmith.errors import ConfigError
from gansmith.lessons import toy
from gansmith.lessons.table import LESSONS, START
from gansmith.web import learn


def ask(pair="ab" * 8, **changes):
    request = {"pair": pair, "restart": False, "choices": {}, "steps": 5, "seed": 0, "field_of": 0, **changes}
    facts, data = learn.learn(None, request)
    assert data == b""
    return facts


def test_a_pair_goes_on_from_request_to_request_until_it_is_started_again():
    assert [ask(pair="01" * 8)["steps"], ask(pair="01" * 8)["steps"], ask(pair="02" * 8)["steps"]] == [5, 10, 5]
    twice = toy.start()
    toy.advance(twice, 10)
    assert ask(pair="01" * 8, steps=0) == toy.frame(twice)
    assert ask(pair="01" * 8, restart=True)["steps"] == 5
    changed = ask(pair="01" * 8, choices={"r1_gamma": 1.0})
    assert changed["steps"] == 10 and changed["choices"]["r1_gamma"] == 1.0


def test_only_a_few_pairs_are_kept_and_a_lost_one_begins_anew():
    for k in range(learn.KEPT + 1):
        ask(pair=f"{k:016x}")
    assert ask(pair=f"{learn.KEPT:016x}")["steps"] == 10 and ask(pair=f"{0:016x}")["steps"] == 5


def test_a_refused_choice_leaves_the_pair_as_it_was():
    ask(pair="cd" * 8)
    with pytest.raises(ConfigError, match="no choice"):
        ask(pair="cd" * 8, choices={"unknown": 1})
    assert ask(pair="cd" * 8)["steps"] == 10


def test_over_http(tmp_path):
    (tmp_path / "runs").mkdir()
    server = Server(tmp_path / "runs")
    try:
        table = server.json("GET", "/api/v1/learn")
        assert [lesson["name"] for lesson in table["lessons"]] == [lesson.name for lesson in LESSONS]
        assert table["start"] == START and table["meanings"]["g_lr"] == "the generator's learning rate"
        body = {"pair": "0123456789abcdef", "steps": 3, "choices": {"conditioning": "labels"}}
        frame = server.json("POST", "/api/v1/learn", body)
        assert frame["steps"] == 3 and frame["choices"]["conditioning"] == "labels" and len(frame["field"]) == toy.FIELD
        for wrong in ({"pair": "../x"}, {"steps": 201}, {"field_of": 8}, {"more": 1}, {"choices": {"g_lr": "fast"}}):
            status, _, said = server.ask("POST", "/api/v1/learn", json.dumps(body | wrong).encode())
            assert status in (400, 422) and json.loads(said)["error"]["message"], wrong
    finally:
        assert "Traceback" not in server.close()
