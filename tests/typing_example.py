"""How a program calls Gansmith, for a strict type checker; test_api.py has mypy read it, nothing runs it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import gansmith as gs
from gansmith.events import Event, Logged, Scored


def train_and_show(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> gs.Run:
    run = gs.train("default", data="mnist", minutes=3)
    assert_type(run, gs.Run)
    assert_type(run.sample(labels=[2, 0, 2, 4], seed=7), gs.Samples)
    assert_type(run.sample(25).images, NDArray[np.uint8])
    assert_type(run.evaluate(), gs.Verdict)
    assert_type(run.diagnose(), gs.Diagnosis)
    assert_type(run.log, list[dict[str, Any]])
    files: list[Path] = [
        run.export("onnx"),
        run.report("report.pdf"),
        run.film("training.gif"),
        run.handin("submission.zip"),
    ]
    assert_type(files[0].name, str)
    data = gs.load_data("fashion-mnist", split="train")
    data = gs.Images(pixels, labels)
    data = gs.Images(torch.from_numpy(pixels), [0, 1, 2], name="three")
    assert_type(data.pixels, Tensor)
    run = gs.train("default", data=data, images=200_000, label_smoothing=0.1, seed=1)
    run = gs.resume("runs/0001-default-mnist", minutes=10)
    assert_type(gs.compare(run, "runs/0002-r3gan-mnist", quick=True), gs.Comparison)
    return gs.open_run(run.directory)


def draw(path: Path) -> NDArray[np.uint8]:
    G = gs.load(path)
    assert_type(G, gs.Model)
    assert_type(G.network, nn.Module)
    assert_type(gs.sample(G, 4, numpy_seed=504).labels, NDArray[np.int64])
    return G.sample(4).images


def losses_of(data: gs.Images) -> Iterator[tuple[int, float]]:
    events = gs.train_events("default", data=data, images=50_000)
    assert_type(events, Iterator[Event])
    for event in events:
        if isinstance(event, Logged):
            assert_type(event.values, Mapping[str, Any])
            yield event.images_seen, event.values["d_loss"]
        elif isinstance(event, Scored):
            assert_type(event.validation_fd_ratio, float)
            assert_type(event.to_json(), dict[str, Any])


def d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return (real_logits - 1).square().mean() + fake_logits.square().mean()


def g_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return (fake_logits - 1).square().mean()


def add_rows() -> gs.Config:
    gs.OBJECTIVES["mine"] = gs.Objective(d_loss, g_loss)
    gs.NETWORKS["own"] = gs.NETWORKS["mlp"]
    gs.RECIPES["house"] = dict(gs.RECIPES["mlp-small"], objective="mine")
    try:
        return gs.resolve("house", arguments={"batch_size": 32})
    except gs.GansmithError as error:
        raise SystemExit(f"{error} ({gs.__version__})") from None
