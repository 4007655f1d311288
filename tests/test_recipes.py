"""Two steps of each recipe from a tutorial or course, against the loop of its source written out in plain PyTorch.

Networks, losses and loops are written here once more from the description alone. Only the first weights, the batches
and the random numbers are shared. Dropout masks and random targets are drawn in the order of the step: real images,
then generated ones, then the generator's turn.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, conv2d, mse_loss, pad

from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.networks.layers import Dropout
from gansmith.recipes import RECIPES
from gansmith.training.penalties import penalties_at
from gansmith.training.state import start_networks
from gansmith.training.step import Batch, train_step
from gansmith.training.techniques import build_techniques

SPEC = ImageSpec(28, 1, 10)
N = 8
# In float64: Adam divides by the gradient's own size, so that in float32 the rounding of a gradient that should be zero
# (a bias before normalisation) would decide a whole step.
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


class Same(nn.Module):
    """Keras' padding of an even image for kernel 3 and stride 2: one row below, one column to the right."""

    def forward(self, x):
        return pad(x, (0, 1, 0, 1)) if x.shape[-1] % 2 == 0 else pad(x, (1, 1, 1, 1))


class Shape(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


def keras_norm(maps, kind=nn.BatchNorm2d):
    return kind(maps, eps=0.001, momentum=1 - 0.8)


def mlp_small():
    G = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh(), Shape(1, 28, 28))
    D = nn.Sequential(Shape(784), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid())
    return G, D


def keras_mlp_generator():
    layers = []
    for inputs, outputs in ((100, 256), (256, 512), (512, 1024)):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), keras_norm(outputs, nn.BatchNorm1d)]
    return nn.Sequential(*layers, nn.Linear(1024, 784), nn.Tanh(), Shape(1, 28, 28))


def mlp_keras():
    hidden = [nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2)]
    return keras_mlp_generator(), nn.Sequential(Shape(784), *hidden, nn.Linear(256, 1), nn.Sigmoid())


class ConditionedByProduct(nn.Module):
    """Keras' conditional examples: the input times an embedding of the label."""

    def __init__(self, layers, length):
        super().__init__()
        self.layers = layers
        self.embedding = nn.Embedding(10, length)

    def forward(self, x, labels):
        return self.layers(x.reshape(len(x), -1) * self.embedding(labels))


def cgan_keras():
    D = nn.Sequential(
        nn.Linear(784, 512), nn.LeakyReLU(0.2),
        nn.Linear(512, 512), nn.LeakyReLU(0.2), Dropout(0.4),
        nn.Linear(512, 512), nn.LeakyReLU(0.2), Dropout(0.4),
        nn.Linear(512, 1), nn.Sigmoid(),
    )  # fmt: skip
    return ConditionedByProduct(keras_mlp_generator(), 100), ConditionedByProduct(D, 784)


def dcgan_keras():
    G = nn.Sequential(
        nn.Linear(100, 128 * 7 * 7), nn.ReLU(), Shape(128, 7, 7),
        nn.Upsample(scale_factor=2), nn.Conv2d(128, 128, 3, padding=1), keras_norm(128), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(128, 64, 3, padding=1), keras_norm(64), nn.ReLU(),
        nn.Conv2d(64, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip
    D = nn.Sequential(
        Same(), nn.Conv2d(1, 32, 3, stride=2), nn.LeakyReLU(0.2), Dropout(0.25),
        Same(), nn.Conv2d(32, 64, 3, stride=2), nn.ZeroPad2d((0, 1, 0, 1)), keras_norm(64), nn.LeakyReLU(0.2),
        Dropout(0.25),
        Same(), nn.Conv2d(64, 128, 3, stride=2), keras_norm(128), nn.LeakyReLU(0.2), Dropout(0.25),
        nn.Conv2d(128, 256, 3, padding=1), keras_norm(256), nn.LeakyReLU(0.2), Dropout(0.25),
        Shape(256 * 4 * 4), nn.Linear(256 * 4 * 4, 1), nn.Sigmoid(),
    )  # fmt: skip
    return G, D


def vanilla_cs231n():
    G = nn.Sequential(
        nn.Linear(96, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 784), nn.Tanh(),
        Shape(1, 28, 28),
    )  # fmt: skip
    D = nn.Sequential(
        Shape(784), nn.Linear(784, 256), nn.LeakyReLU(0.01), nn.Linear(256, 256), nn.LeakyReLU(0.01), nn.Linear(256, 1)
    )
    return G, D


def dcgan_cs231n():
    G = nn.Sequential(
        nn.Linear(96, 1024), nn.ReLU(), nn.BatchNorm1d(1024),
        nn.Linear(1024, 7 * 7 * 128), nn.ReLU(), nn.BatchNorm1d(7 * 7 * 128), Shape(128, 7, 7),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1), nn.ReLU(), nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip
    D = nn.Sequential(
        nn.Conv2d(1, 32, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2),
        Shape(4 * 4 * 64), nn.Linear(4 * 4 * 64, 4 * 4 * 64), nn.LeakyReLU(0.01), nn.Linear(4 * 4 * 64, 1),
    )  # fmt: skip
    return G, D


def dcgan_sgd():
    G = nn.Sequential(
        Shape(100, 1, 1),
        nn.ConvTranspose2d(100, 256, 7), nn.BatchNorm2d(256), nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip
    D = nn.Sequential(
        nn.Conv2d(1, 128, 4, stride=2, padding=1), nn.LeakyReLU(0.2), Dropout(0.3),
        nn.Conv2d(128, 256, 4, stride=2, padding=1), nn.BatchNorm2d(256), nn.LeakyReLU(0.2), Dropout(0.3),
        nn.Conv2d(256, 1, 7), nn.Sigmoid(),
    )  # fmt: skip
    return G, D


def adam(network, rate=2e-4, betas=(0.5, 0.999)):
    return torch.optim.Adam(network.parameters(), lr=rate, betas=betas)


def step_on(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def loop_of_cross_entropy(G, D, batches, *, real_target=1.0, betas=(0.5, 0.999)):
    """The loop that most sources share: probabilities, binary cross-entropy, both networks on the same fakes."""
    g_optimizer, d_optimizer = adam(G, betas=betas), adam(D, betas=betas)
    losses = []
    for batch in batches:
        ones, zeros = torch.ones(N, 1).double(), torch.zeros(N, 1).double()
        fake = G(batch.z)
        real_loss = binary_cross_entropy(D(batch.real), real_target * ones)
        fake_loss = binary_cross_entropy(D(fake.detach()), zeros)
        d_loss = step_on(d_optimizer, real_loss + fake_loss)
        losses.append((d_loss, step_on(g_optimizer, binary_cross_entropy(D(fake), ones))))
    return losses


def loop_of_labels(G, D, batches):
    """The same with labels given to both. D sees both kinds in one batch, as it may without normalisation."""
    g_optimizer, d_optimizer = adam(G), adam(D)
    losses = []
    for batch in batches:
        fake = G(batch.z, batch.fake_y)
        images, labels = torch.cat([batch.real, fake.detach()]), torch.cat([batch.real_y, batch.fake_y])
        targets = torch.tensor([1.0] * N + [0.0] * N).double()
        d_loss = step_on(d_optimizer, 2 * binary_cross_entropy(D(images, labels).reshape(2 * N), targets))
        g_loss = binary_cross_entropy(D(fake, batch.fake_y), torch.ones(N, 1).double())
        losses.append((d_loss, step_on(g_optimizer, g_loss)))
    return losses


def loop_of_logits(G, D, batches):
    """The course's loop: the generator's turn draws images of its own."""
    g_optimizer, d_optimizer = adam(G, 1e-3), adam(D, 1e-3)
    losses = []
    for batch in batches:
        fake = G(batch.z)
        d_loss = step_on(
            d_optimizer,
            binary_cross_entropy_with_logits(D(batch.real), torch.ones(N, 1).double())
            + binary_cross_entropy_with_logits(D(fake.detach()), torch.zeros(N, 1).double()),
        )
        g_loss = binary_cross_entropy_with_logits(D(G(batch.extra_z[0])), torch.ones(N, 1).double())
        losses.append((d_loss, step_on(g_optimizer, g_loss)))
    return losses


def loop_of_squares(G, D, batches):
    g_optimizer, d_optimizer = adam(G, 1e-3), adam(D, 1e-3)
    losses = []
    for batch in batches:
        fake = G(batch.z)
        real_loss, fake_loss = (
            0.5 * mse_loss(D(images), target)
            for images, target in ((batch.real, torch.ones(N, 1).double()), (fake.detach(), torch.zeros(N, 1).double()))
        )
        d_loss = step_on(d_optimizer, real_loss + fake_loss)
        output = D(G(batch.extra_z[0]))
        losses.append((d_loss, step_on(g_optimizer, 0.5 * mse_loss(output, torch.ones(N, 1).double()))))
    return losses


def loop_of_flipped_random_labels(G, D, batches):
    """D learns by SGD, with targets of 0 to 0.3 for real images and 0.7 to 1 for generated ones; G with 0 to 0.3."""
    g_optimizer, d_optimizer = adam(G), torch.optim.SGD(D.parameters(), lr=2e-4)
    losses = []
    for batch in batches:
        fake = G(batch.z)
        d_real, d_fake = D(batch.real).reshape(N), D(fake.detach()).reshape(N)
        torch.rand((), generator=batch.rng)  # whether to flip: always, here
        low, high = (0.3 * torch.rand(N, generator=batch.rng, dtype=torch.float64) for _ in range(2))
        d_loss = step_on(d_optimizer, binary_cross_entropy(d_real, low) + binary_cross_entropy(d_fake, 0.7 + high))
        output = D(fake).reshape(N)
        target = 0.3 * torch.rand(N, generator=batch.rng, dtype=torch.float64)
        losses.append((d_loss, step_on(g_optimizer, binary_cross_entropy(output, target))))
    return losses


SOURCES = {
    "mlp-small": (mlp_small, lambda G, D, batches: loop_of_cross_entropy(G, D, batches, betas=(0.9, 0.999))),
    "mlp-keras": (mlp_keras, lambda G, D, batches: loop_of_cross_entropy(G, D, batches, real_target=0.9)),
    "cgan-keras": (cgan_keras, loop_of_labels),
    "dcgan-keras": (dcgan_keras, loop_of_cross_entropy),
    "vanilla-cs231n": (vanilla_cs231n, loop_of_logits),
    "lsgan-cs231n": (vanilla_cs231n, loop_of_squares),
    "dcgan-cs231n": (dcgan_cs231n, loop_of_logits),
    "dcgan-sgd": (dcgan_sgd, loop_of_flipped_random_labels),
}


def copy_weights(source, target):
    """By order and shape: the embedding, which either side may register first, apart from the rest."""
    for embedded in (True, False):
        ours, theirs = (
            [p for name, p in network.named_parameters() if ("embedding" in name) == embedded]
            for network in (source, target)
        )
        assert [p.shape for p in ours] == [p.shape for p in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            other.data = mine.detach().clone()


def sorted_weights(network):
    named = sorted(network.named_parameters(), key=lambda pair: "embedding" in pair[0])
    return [parameter.detach() for _, parameter in named]


LONG = ("dcgan-keras", "dcgan-cs231n")


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in SOURCES]
)
def test_two_steps_are_those_of_the_plain_loop(recipe):
    config = resolve(recipe, arguments={"batch_size": N, "precision": "float32"})
    networks = start_networks(config, SPEC)
    networks.G.double(), networks.D.double()
    draw = torch.Generator().manual_seed(7)
    batches = []
    for index in range(2):
        y = torch.randint(0, 10, (N,), generator=draw)
        real = torch.rand(N, 1, 28, 28, generator=draw, dtype=torch.float64) * 2 - 1
        z, *extra_z = torch.randn(1 + config.fresh_fakes, N, config.latent_dim, generator=draw, dtype=torch.float64)
        batches.append(
            Batch(real, y, z, y, torch.Generator().manual_seed(index), 0.0, False, tuple(extra_z), config.fresh_fakes)
        )
    build, loop = SOURCES[recipe]
    G, D = (network.double() for network in build())
    copy_weights(networks.G, G)
    copy_weights(networks.D, D)
    before = copy.deepcopy(sorted_weights(networks.D))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = loop(G, D, copy_batches(batches))
        torch.manual_seed(3)
        techniques = build_techniques(config, networks.D)
        ours = [train_step(networks, batch, techniques, penalties_at(config, 0, 0.0, {})) for batch in batches]

    assert [(row["d_loss"], row["g_loss"]) for row in ours] == [pytest.approx(row, rel=1e-9) for row in expected]
    for mine, theirs in ((networks.G, G), (networks.D, D)):
        torch.testing.assert_close(sorted_weights(mine), sorted_weights(theirs), **CLOSE)
    moved = max((a - b).abs().max().item() for a, b in zip(before, sorted_weights(networks.D), strict=True))
    assert moved > 10 * CLOSE["atol"] or config.d_optimizer == "sgd"


def copy_batches(batches):
    """Return the same batches with random generators of their own, in the same state."""
    twins = []
    for batch in batches:
        rng = torch.Generator()
        rng.set_state(batch.rng.get_state())
        twins.append(replace(batch, rng=rng))
    return twins


def test_every_recipe_from_a_tutorial_or_course_has_its_loop():
    networks = ("mlp", "mlp-keras", "cgan-keras", "mlp-deep", "dcgan", "dcgan-keras", "dcgan-pooled")
    assert set(SOURCES) == {name for name, row in RECIPES.items() if row["network"] in networks}


def test_same_padding_puts_the_odd_zero_right_and_below():
    """Keras' rule for stride 2, worked out by hand: total (ceil(n/2) - 1) * 2 + 3 - n, the larger half last."""
    from gansmith.networks.layers import PadSame

    for size, (before, after) in {28: (0, 1), 14: (0, 1), 7: (1, 1), 9: (1, 1)}.items():
        image = torch.randn(1, 1, size, size)
        kernel = torch.randn(1, 1, 3, 3)
        by_hand = conv2d(pad(image, (before, after, before, after)), kernel, stride=2)
        torch.testing.assert_close(conv2d(PadSame(kernel_size=3, stride=2)(image), kernel, stride=2), by_hand)
        assert by_hand.shape[-1] == -(-size // 2)
