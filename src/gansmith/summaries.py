"""Summaries of a recipe's networks and choices: layers, shapes, parameters, objective, optimisers, budget."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gansmith.conditioning import conditioned_spec
from gansmith.config import FIELDS, Config
from gansmith.data.images import ImageSpec
from gansmith.networks import build_networks
from gansmith.training.conflicts import used_techniques
from gansmith.training.techniques import build_techniques

SPEC = ImageSpec(size=28, channels=1, num_classes=10)  # what a recipe is described for


def describe(config: Config, spec: ImageSpec = SPEC) -> dict[str, Any]:
    """Return what a recipe is made of, for images like `spec`; "auto" conditioning means labels there."""
    if config.conditioning == "auto":
        config = config.replace(conditioning="labels")
    G, D = build_networks(config, spec)
    build_techniques(config, D)
    y = torch.zeros(2, dtype=torch.int64)
    images = torch.zeros(2, spec.channels, spec.size, spec.size)
    latents = torch.zeros(2, config.latent_dim)
    return {
        "recipe": config.recipe,
        "network": config.network,
        "image_shape": [spec.channels, spec.size, spec.size],
        "latent_dim": config.latent_dim,
        "conditional": conditioned_spec(spec, config).num_classes > 0,
        "conditioning": config.conditioning,
        "g_layers": _layers(G, latents, y),
        "d_layers": _layers(D, images, y),
        "g_parameters": _count(G),
        "d_parameters": _count(D),
        "objective": config.objective,
        "r1_gamma": config.r1_gamma,
        "r2_gamma": config.r2_gamma,
        "g_optimizer": _optimizer(config, "g"),
        "d_optimizer": _optimizer(config, "d"),
        "techniques": used_techniques(config),
        "batch_size": config.batch_size,
        "images": config.images,
    }


def _optimizer(config: Config, which: str) -> str:
    """Return the optimiser of "g" or "d" in words."""
    name, rate = getattr(config, f"{which}_optimizer"), getattr(config, f"{which}_lr")
    betas = f"betas {config.beta1:g} and {config.beta2:g}"
    settings = {
        "adam": betas,
        "adamw": f"{betas}, weight decay {config.weight_decay:g}",
        "rmsprop": f"alpha {config.beta2:g}",
        "sgd": f"momentum {config.momentum:g}",
        "soap": betas,
    }
    return f"{name} {rate:g}, {settings[name]}"


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _layers(network: nn.Module, *inputs: Tensor) -> list[dict[str, Any]]:
    """Return one row for each layer in the order it runs: kind, settings, output shape without the batch, parameters.

    Layers that only training runs, such as a classifier or those of sizes a network has grown beyond, come last.
    """
    layers = {name: layer for name, layer in network.named_modules() if _is_row(name, layer)}
    rows: list[dict[str, Any]] = []
    handles = [layer.register_forward_hook(partial(_note_row, rows, name)) for name, layer in layers.items()]
    with torch.no_grad():
        network.eval()(*inputs)
    for handle in handles:
        handle.remove()
    ran = {row["name"] for row in rows}
    others = [(name, layer) for name, layer in layers.items() if name not in ran and _own_count(layer)]
    return rows + [_to_row(name, layer, []) for name, layer in others]


def _note_row(rows: list[dict[str, Any]], name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
    """Append the row of a layer that has just run; of several outputs, the first counts."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    rows.append(_to_row(name, layer, list(first.shape[1:]) if isinstance(first, Tensor) else []))


def _to_row(name: str, layer: nn.Module, shape: list[int]) -> dict[str, Any]:
    settings = layer.extra_repr().split(", affine=")[0]  # the rest is the same everywhere
    row = {"name": name, "kind": _kind(layer), "settings": settings, "shape": shape}
    return {**row, "parameters": _own_count(layer)}


def _is_row(name: str, layer: nn.Module) -> bool:
    """Return whether a layer has no parts, or weights of its own besides them."""
    if isinstance(layer, nn.Identity | nn.ParameterList) or ".parametrizations." in f".{name}":
        return False
    return not _parts(layer) or next(layer.parameters(recurse=False), None) is not None


def _parts(layer: nn.Module) -> list[nn.Module]:
    return [child for name, child in layer.named_children() if name != "parametrizations"]


def _own_count(layer: nn.Module) -> int:
    return _count(layer) - sum(_count(part) for part in _parts(layer))


def _kind(layer: nn.Module) -> str:
    """Return the class of a layer, also of one whose weight is computed from another."""
    return type(layer).__name__.removeprefix("Parametrized")


def to_text(facts: dict[str, Any]) -> str:
    """Return the facts of `describe` as a table for people."""
    lines = [f"recipe {facts['recipe']}, images {facts['image_shape']}, latent {facts['latent_dim']}"]
    for which, title in (("g", "generator"), ("d", "discriminator")):
        lines += ["", f"{title} ({facts[f'{which}_parameters']:,} parameters)"]
        for layer in facts[f"{which}_layers"]:
            shape = "x".join(map(str, layer["shape"])) or "-"
            lines.append(
                f"  {layer['name']:<24} {layer['kind']:<18} {shape:<14} {layer['parameters']:>10,}  {layer['settings']}"
            )
    lines += [
        "",
        f"conditioning   {facts['conditioning']}",
        f"objective      {facts['objective']}",
        f"generator      {facts['g_optimizer']}",
        f"discriminator  {facts['d_optimizer']}",
        f"budget         {facts['images']:,} images, batch size {facts['batch_size']}",
        "techniques     " + ("none" if not facts["techniques"] else ""),
    ]
    lines += [
        f"  {name:<20} {value!s:<10} {FIELDS[name].metadata['help']}" for name, value in facts["techniques"].items()
    ]
    return "\n".join(line.rstrip() for line in lines)
