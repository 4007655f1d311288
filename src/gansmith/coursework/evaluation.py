"""Generates the 5x5 grid of this hand-in and checks that every class occurs in it.

    python evaluation.py

Needs NumPy, h5py and Pillow. Reads generator.json and generator.h5, with Keras where it is installed and otherwise with
the NumPy functions below, and writes grid.png: 25 images on black without gaps, four inches wide. The latents are
numpy.random.normal(size=[25, z_dim]) after numpy.random.seed(seed); both numbers stand in evaluation.json.
classifier.npz recognises the classes; it took no part in training the generator.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
Array = NDArray[Any]
Layer = Callable[[dict[str, Any], list[Array], list[Array]], Array]  # (config, weights, inputs) -> output


def main() -> None:
    settings = json.loads((HERE / "evaluation.json").read_text())
    try:
        images, reader = generate_with_keras(inputs(settings)), "Keras"
    except ImportError:
        images, reader = generate(inputs(settings)), "NumPy"
    save_grid(to_bytes(images), HERE / "grid.png")
    print(f"25 images generated with {reader} -> grid.png")
    if (HERE / "classifier.npz").is_file():
        found = classify(images)
        print("recognised in the grid, row by row:")
        for row in found.reshape(5, 5):
            print("  " + " ".join(str(label) for label in row))
        missing = sorted(set(settings["classes"]) - set(found.tolist()))
        print(f"missing: {', '.join(map(str, missing))}" if missing else "every class occurs")


def inputs(settings: dict[str, Any]) -> list[Array]:
    """Return latents (25, z_dim), normal numbers of the seed or uniform ones made from them, and any labels (25, 1)."""
    z = np.random.RandomState(settings["seed"]).normal(size=(25, settings["z_dim"])).astype(np.float32)
    if settings["latent_distribution"] == "uniform":  # in [-1, 1]
        z = erf(z / np.float32(2**0.5))
    labels = settings["labels"]
    return [z] if labels is None else [z, np.array(labels, dtype=np.int32)[:, None]]


def erf(x: Array) -> Array:
    """Return the error function of each number."""
    values: Array = np.vectorize(math.erf, otypes=[np.float32])(x)
    return values


def to_bytes(images: Array) -> Array:
    """Convert images in [-1, 1] to grey levels from 0 to 255."""
    shades: Array = np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)
    return shades


def save_grid(images: Array, path: Path) -> None:
    """Write five rows of five (25, H, W, C) images, enlarged by a whole factor, four inches wide in print."""
    n, height, width, channels = images.shape
    tiles = images.reshape(5, 5, height, width, channels).transpose(0, 2, 1, 3, 4)
    grid = tiles.reshape(5 * height, 5 * width, channels)
    picture = Image.fromarray(grid[..., 0] if channels == 1 else grid)
    factor = max(1, round(400 / picture.width))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.save(path, dpi=(picture.width / 4, picture.height / 4))


def generate_with_keras(inputs: list[Array]) -> Array:
    """Return images (N, H, W, C) in [-1, 1] that Keras generates; ImportError where it is not installed."""
    import keras

    model = keras.models.model_from_json((HERE / "generator.json").read_text())
    model.load_weights(str(HERE / "generator.h5"))
    images = model.predict(inputs if len(model.inputs) > 1 else inputs[0], verbose=0)
    return np.asarray(images, dtype=np.float32)


def generate(inputs: list[Array], folder: Path = HERE) -> Array:
    """Return the same images by NumPy: each layer in the order of the file, on the outputs of its inputs."""
    model = json.loads((folder / "generator.json").read_text())["config"]
    values: dict[str, Array] = {name: value for (name, *_), value in zip(model["input_layers"], inputs, strict=False)}
    with h5py.File(folder / "generator.h5", "r") as file:
        for layer in model["layers"]:
            if layer["class_name"] == "InputLayer":
                continue
            group = file[layer["name"]]
            weights = [np.asarray(group[name]) for name in group.attrs["weight_names"]]
            sources = [values[source[0]] for source in layer["inbound_nodes"][0]]
            values[layer["name"]] = LAYERS[layer["class_name"]](layer["config"], weights, sources)
    return values[model["output_layers"][0][0]]


# One function for each kind of Keras layer: (its settings, its weights, its inputs) -> its output.


def dense(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    return inputs[0] @ weights[0] + (weights[1] if config["use_bias"] else 0)


def embedding(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    rows: Array = weights[0][inputs[0].astype(np.int64)]
    return rows


def batch_normalization(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    gamma, beta, mean, variance = weights
    return (inputs[0] - mean) * gamma / np.sqrt(variance + np.float32(config["epsilon"])) + beta


def conv_2d(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    """Convolve without padding: a sum over kernel positions, each a matrix product over channels."""
    kernel, x = weights[0], inputs[0]
    (down, right), (dy, dx) = config["strides"], config["dilation_rate"]
    height = (x.shape[1] - dy * (kernel.shape[0] - 1) - 1) // down + 1
    width = (x.shape[2] - dx * (kernel.shape[1] - 1) - 1) // right + 1
    total = np.zeros((len(x), height, width, kernel.shape[3]), np.float32)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            rows, columns = slice(i * dy, i * dy + height * down, down), slice(j * dx, j * dx + width * right, right)
            total += x[:, rows, columns][:, :height, :width] @ kernel[i, j]
    return total + (weights[1] if config["use_bias"] else 0)


def conv_2d_transpose(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    """Convolve transposed: each pixel adds the kernel, times its value, to the outputs it reaches."""
    kernel, x = weights[0], inputs[0]  # (kh, kw, out, in)
    down, right = config["strides"]
    n, height, width, _ = x.shape
    reach = [max(size, step) for size, step in zip(kernel.shape[:2], (down, right), strict=True)]
    out = np.zeros((n, (height - 1) * down + reach[0], (width - 1) * right + reach[1], kernel.shape[2]), np.float32)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out[:, i : i + height * down : down, j : j + width * right : right][:, :height, :width] += (
                x @ kernel[i, j].T
            )
    return out + (weights[1] if config["use_bias"] else 0)


def up_sampling_2d(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    x = inputs[0]
    for axis, factor in zip((1, 2), config["size"], strict=True):
        if config["interpolation"] == "nearest":
            x = np.repeat(x, factor, axis)
        else:  # bilinear: positions are pixel centres, the border is repeated
            place = np.clip((np.arange(x.shape[axis] * factor) + 0.5) / factor - 0.5, 0, x.shape[axis] - 1)
            low = np.floor(place).astype(int)
            high = np.minimum(low + 1, x.shape[axis] - 1)
            share = (place - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(4)])
            x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def activation(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    functions: dict[str, Callable[[Array], Array]] = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "swish": lambda x: x / (1 + np.exp(-x)),
        "softplus": lambda x: np.logaddexp(x, 0),
        "gelu": lambda x: 0.5 * x * (1 + erf(x / np.float32(2**0.5))),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * np.expm1(np.minimum(x, 0))),
        "linear": lambda x: x,
    }
    return functions[config["activation"]](inputs[0])


def pad(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    return np.pad(inputs[0], [(0, 0), *map(tuple, config["padding"]), (0, 0)])


def crop(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    (top, bottom), (left, right) = config["cropping"]
    x = inputs[0]
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def crop_row(config: dict[str, Any], weights: list[Array], inputs: list[Array]) -> Array:
    first, last = config["cropping"]
    return inputs[0][:, first : inputs[0].shape[1] - last]


LAYERS: dict[str, Layer] = {
    "Dense": dense,
    "Embedding": embedding,
    "BatchNormalization": batch_normalization,
    "Conv2D": conv_2d,
    "Conv2DTranspose": conv_2d_transpose,
    "UpSampling2D": up_sampling_2d,
    "ZeroPadding2D": pad,
    "Cropping1D": crop_row,
    "Cropping2D": crop,
    "Activation": activation,
    "LeakyReLU": lambda config, weights, inputs: np.where(inputs[0] > 0, inputs[0], config["alpha"] * inputs[0]),
    "ReLU": lambda config, weights, inputs: np.clip(inputs[0], 0, config["max_value"]),
    "Rescaling": lambda config, weights, inputs: inputs[0] * config["scale"] + config["offset"],
    "Reshape": lambda config, weights, inputs: inputs[0].reshape(-1, *config["target_shape"]),
    "Permute": lambda config, weights, inputs: inputs[0].transpose(0, *config["dims"]),
    "Flatten": lambda config, weights, inputs: inputs[0].reshape(len(inputs[0]), -1),
    "Multiply": lambda config, weights, inputs: inputs[0] * inputs[1],
    "Add": lambda config, weights, inputs: inputs[0] + inputs[1],
    "Subtract": lambda config, weights, inputs: inputs[0] - inputs[1],
    "UnitNormalization": lambda config, weights, inputs: inputs[0] / np.linalg.norm(inputs[0], axis=1, keepdims=True),
    "Concatenate": lambda config, weights, inputs: np.concatenate(inputs, axis=-1),
}


def classify(images: Array) -> Array:
    """Return the class of each image (N, H, W, C) in [-1, 1], by three strided convolutions and two dense layers."""
    x = images
    with np.load(HERE / "classifier.npz", allow_pickle=False) as weights:
        for k in range(3):
            kernel = weights[f"kernel{k}"]  # (h, w, in, out)
            edge = kernel.shape[0] // 2
            x = np.pad(x, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
            config = {"strides": (2, 2), "dilation_rate": (1, 1), "use_bias": True}
            x = np.maximum(conv_2d(config, [kernel, weights[f"bias{k}"]], [x]), 0)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # channels first, as the dense layer was trained
        for name in ("hidden", "classes"):
            x = np.maximum(x, 0) @ weights[name] + weights[f"{name}_bias"]
    classes: Array = x.argmax(axis=1)
    return classes


if __name__ == "__main__":
    main()
