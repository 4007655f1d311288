"""A generator as a graph of tensor operations, which exporters read, and the check of what was exported."""

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gansmith.errors import GansmithError
from gansmith.networks.layers import Dropout
from gansmith.randomness import rng, seeded
from gansmith.sampling import Model, draw_latents, draws_noise
from gansmith.signature import ExportedGenerator

DISTRIBUTIONS = {"normal": "standard normal numbers", "uniform": "numbers, uniform in [-1, 1]"}
CHECKED_IMAGES = 67  # more than a chunk of sampling, and a prime, so that no fixed batch size divides it

Generate = Callable[[Tensor, Tensor], Tensor]  # from latents z and labels to images, as G does


def trace(model: Model) -> torch.export.ExportedProgram:
    """Return G in evaluation mode as a graph with a dynamic batch size; its last inputs are z and, if G uses it, label.

    Args:
        model: with the signature of exported files, as `as_exported` returns it.

    Raises GansmithError for a generator that draws noise or samples with dropout: an image would depend on others.
    """
    if draws_noise(model):
        raise GansmithError(
            "this generator draws random numbers besides its latents, which no other format can reproduce; export it "
            "as safetensors"
        )
    if any(isinstance(layer, Dropout) for layer in model.network.modules()):
        raise GansmithError(
            "this generator samples with dropout, which no other format can reproduce; export it as safetensors"
        )
    z, label = torch.zeros(2, model.config.latent_dim), torch.zeros(2, dtype=torch.int64)
    batch = {0: torch.export.Dim("batch")}
    if model.conditioning.has_labels:
        G = ExportedGenerator(model.network, thresholds=None, radius=None)  # for the names of its inputs
        program = torch.export.export(G, (z, label), dynamic_shapes=(batch, batch))
        if program.graph.find_nodes(op="placeholder")[-1].users:
            return _without_source_paths(program)
    return _without_source_paths(torch.export.export(_FromLatents(model.network), (z,), dynamic_shapes=(batch,)))


class _FromLatents(nn.Module):
    """G as a function of latents alone, with label 0 for every image."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.G(z, torch.zeros(z.shape[0], dtype=torch.int64))
        return images


def facts(model: Model) -> dict[str, str]:
    """Return what a file's user needs to know, by name: each input and the output, the images, the names of classes.

    Args:
        model: as for `trace`.
    """
    spec, config, conditioning = model.spec, model.config, model.conditioning
    z = f"float32 (N, {config.latent_dim}), {DISTRIBUTIONS[config.latent_distribution]}"
    if conditioning.in_latents:
        z += "; the last number chooses among clusters of training images" + " of the label" * conditioning.has_labels
    found = {"z": z}
    if conditioning.has_labels:
        found["label"] = f"int64 (N,), {conditioning.listing}"
    return found | {
        "images": f"float32 (N, {spec.channels}, {spec.size}, {spec.size}), from -1 (black) to 1",
        "latent_dim": str(config.latent_dim),
        "class_names": json.dumps(model.class_names),
        "preparation": json.dumps({"size": spec.size, "channels": spec.channels, "resize": config.resize}),
    }


def _without_source_paths(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Remove the paths of source files that torch stores with every operation, and return the graph."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    return program


@torch.no_grad()
def largest_difference(model: Model, generate: Generate) -> float:
    """Return the largest difference of any pixel in [-1, 1] between G's images and those of an exported generator."""
    z = draw_latents(model.config, seed=0, count=CHECKED_IMAGES)
    labels = torch.linspace(0, len(model.conditioning) - 1, CHECKED_IMAGES).round().long()
    images = []
    for draw in (generate, model.network):
        with seeded(rng("noise")):  # which a network of a program's own may draw
            images.append(draw(z, labels))
    found, expected = images
    if found.shape != expected.shape:
        shapes = f"{tuple(found.shape)}, not {tuple(expected.shape)}"
        raise RuntimeError(f"the exported generator's images have shape {shapes}: a bug in the exporter")
    return float((found - expected).abs().max())
