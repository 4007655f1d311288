"""Train the frozen evaluator of a data set, measure what real images score, and write both into the package.

    GANSMITH_DATA=... python scripts/train_evaluator.py mnist

Prints the row that `SHIPPED` in src/gansmith/metrics/features.py needs.
"""

import hashlib
import logging
import sys
from pathlib import Path

import safetensors.torch

import gansmith.metrics
from gansmith.data import load_data
from gansmith.data.embedded import embedded_mnist
from gansmith.data.images import split
from gansmith.metrics.evaluator_training import accuracy, train_evaluator
from gansmith.metrics.features import random_feature_network
from gansmith.metrics.reference import measure_reference, to_tensors

IMAGES = 700_000  # 14 epochs of the train split


def main(name: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    whole, test = load_data(name), load_data(name, part="test")
    train, validation = split(whole)
    trained, random = train_evaluator(train, validation, images=IMAGES), random_feature_network(train.spec)
    random.fit_scale(train.shuffled(10_000).pixels)
    references = {
        key: measure_reference(network.features(test.pixels), network.features(validation.pixels))
        for key, network in (("trained", trained), ("random", random))
    }
    tensors = {f"trained.{key}": value for key, value in trained.state_dict().items()}
    tensors |= {"random.scale": random.scale, **to_tensors(references)}
    data = safetensors.torch.save(tensors)
    path = Path(gansmith.metrics.__file__).parent / "evaluators" / f"{name}.safetensors"
    path.write_bytes(data)
    print(f"{path}: {len(data):,} bytes, temperature {trained.temperature.item():.2f}")
    print(f"accuracy: validation {accuracy(trained, validation):.4f}, test {accuracy(trained, test):.4f}")
    for key, reference in references.items():
        print(f"FD of real images, {key}: {dict(reference.fd_real)}")
    hashes = [whole.sha256, test.sha256, *([embedded_mnist().sha256] if name == "mnist" else [])]
    print(f'"{name}": Shipped(\n    "{hashlib.sha256(data).hexdigest()}",\n    {tuple(hashes)},\n)')


if __name__ == "__main__":
    main(sys.argv[1])
