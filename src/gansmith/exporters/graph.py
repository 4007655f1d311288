"""A generator as the graph of tensor operations that every exporter reads, and the check that closes every export."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gansmith.errors import GansmithError
from gansmith.sampling import Model, draw_latents
from gansmith.networks.layers import Dropout

CHECKED_IMAGES = 67  # more than one chunk, and no multiple of anything a batch size could be mistaken for

Draw = Callable[[Tensor, Tensor], Tensor]  # G, or anything that gives images for latents and ids as it does


def trace(model: Model) -> torch.export.ExportedProgram:
    """G in evaluation mode as a graph with a free batch size; its last inputs are z and, where G heeds them, ids.

    Raises ValueError for a generator that draws with dropout: a graph cannot hold a mask that is each image's own.
    """
    if any(isinstance(layer, Dropout) for layer in model.network.modules()):
        raise GansmithError(
            "this generator draws with dropout, which no other format can repeat; export it as safetensors"
        )
    z, ids = torch.zeros(2, model.config.latent_dim), torch.zeros(2, dtype=torch.int64)
    free = {0: torch.export.Dim("batch")}
    if len(model.conditioning.frequencies) > 1:
        program = torch.export.export(model.network, (z, ids), dynamic_shapes=(free, free))
        if program.graph.find_nodes(op="placeholder")[-1].users:
            return _without_traces(program)
    return _without_traces(torch.export.export(_FromLatents(model.network), (z,), dynamic_shapes=(free,)))


class _FromLatents(nn.Module):
    """G as a function of latents alone: every image has id 0."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.G(z, torch.zeros(z.shape[0], dtype=torch.int64))
        return images


def _without_traces(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The graph without the paths of source files that torch notes at every operation."""
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(note, None)
    return program


@torch.no_grad()
def largest_difference(model: Model, draw: Draw) -> float:
    """The largest difference of any pixel in [-1, 1] between G's images and those of `draw(latents, ids)`."""
    z = draw_latents(model.config, seed=0, count=CHECKED_IMAGES)
    ids = torch.linspace(0, len(model.conditioning.frequencies) - 1, CHECKED_IMAGES).round().long()
    drawn, expected = draw(z, ids), model.network(z, ids)
    if drawn.shape != expected.shape:
        shapes = f"{tuple(drawn.shape)}, not {tuple(expected.shape)}"
        raise RuntimeError(f"the exported generator draws {shapes}: a bug in the exporter")
    return float((drawn - expected).abs().max())
