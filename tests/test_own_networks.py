"""Networks and objectives that a program brings: what they may do, and what is refused in one sentence."""

import numpy as np
import pytest
import torch
from torch import nn

import gansmith as gs
from gansmith.errors import ConfigError, GansmithError


class G(nn.Module):
    def __init__(self, spec, config):
        super().__init__()
        self.spec, self.first = spec, nn.Linear(config.latent_dim, 32)
        self.last = nn.Linear(32, spec.channels * spec.size**2)

    def hidden(self, z):
        return torch.relu(self.first(z))

    def forward(self, z, y):
        return torch.tanh(self.last(self.hidden(z))).view(-1, self.spec.channels, self.spec.size, self.spec.size)


class D(nn.Module):
    def __init__(self, spec, config):
        super().__init__()
        self.first, self.last = nn.Linear(spec.channels * spec.size**2, 32), nn.Linear(32, 1)

    def forward(self, images, y):
        return self.last(torch.nn.functional.leaky_relu(self.first(images.flatten(1)), 0.2)).squeeze(1)


@pytest.fixture
def data():
    pixels = (np.random.default_rng(0).random((200, 16, 16)) > 0.5).astype("uint8") * 255
    return gs.Images(pixels, np.arange(200) % 4, name="noise")


@pytest.fixture
def train(monkeypatch, tmp_path, data):
    def run(out, *, G=G, D=D, **choices):
        monkeypatch.setitem(gs.NETWORKS, "own", lambda spec, config: (G(spec, config), D(spec, config)))
        choices = {"images": 192, "network": "own", **choices}
        return gs.train("mlp-small", data=data, out=tmp_path / out, seed=1, progress="none", trackers="none", **choices)

    return run


def weights(run):
    return {name: value.clone() for name, value in run.generator.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class DroppingD(D):
    def forward(self, images, y):
        return nn.functional.dropout(super().forward(images, y), 0.5)


@pytest.mark.slow
def test_what_an_own_network_draws_depends_on_the_seed_alone(train, data):
    torch.manual_seed(0)
    first = train("a", D=DroppingD, images=384)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    train("b", D=DroppingD)
    assert torch.equal(torch.get_rng_state(), state)
    second = gs.resume(first.directory.with_name("b"), data=data, images=384, progress="none")
    assert_same(weights(first), weights(second))


class CountingG(G):
    """Normalises by running statistics of its own."""

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)

    def hidden(self, z):
        return self.norm(super().hidden(z).view(-1, 4, 8)).flatten(1)


def test_the_average_has_the_buffers_of_the_generator(train):
    network = train("a", G=CountingG, ema=0.1).generator.network
    assert network.norm.running_mean.abs().min() > 0


class TiedG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.second, self.third = nn.Linear(32, 32), nn.Linear(32, 32)
        self.third.weight = self.second.weight

    def hidden(self, z):
        return self.third(self.second(super().hidden(z)))


class FrozenG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.first.weight.requires_grad_(False)


class FrozenD(D):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.first.weight.requires_grad_(False)


class BatchG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.norm = nn.BatchNorm1d(32, track_running_stats=False)

    def hidden(self, z):
        return self.norm(super().hidden(z))


class DoubleG(G):
    def forward(self, z, y):
        return super().forward(z.double(), y)

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.double()


@pytest.mark.slow
@pytest.mark.parametrize("pair", [{"G": TiedG}, {"G": FrozenG, "D": FrozenD}, {"G": BatchG}, {"G": DoubleG}], ids=str)
def test_unusual_networks_train_and_go_on_bit_for_bit(train, data, pair):
    whole = train("a", **pair, images=384)
    train("b", **pair)
    assert_same(
        weights(whole), weights(gs.resume(whole.directory.with_name("b"), data=data, images=384, progress="none"))
    )


@pytest.mark.slow
def test_tied_weights_stay_tied_and_frozen_ones_as_they_were(train):
    tied = weights(train("a", G=TiedG))
    assert torch.equal(tied["second.weight"], tied["third.weight"])
    before, after = (weights(train(str(images), G=FrozenG, D=FrozenD, images=images)) for images in (64, 192))
    assert torch.equal(before["first.weight"], after["first.weight"])
    assert not torch.equal(before["last.weight"], after["last.weight"])


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        return images.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class OnceD(D):
    def forward(self, images, y):
        return super().forward(Once.apply(images), y)


class LazyG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.more = nn.LazyLinear(3)


class StillD(D):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"D": OnceD, "r1_gamma": 1.0}, "does not depend on its parameters.*r1_gamma.*have no effect"),
        ({"G": LazyG}, "lazy layers"),
        ({"D": StillD}, "D has no parameters that require gradients"),
        ({"G": lambda spec, config: 5}, r"NETWORKS\['own'\] gives \(5"),
    ],
    ids=["once", "lazy", "still", "number"],
)
def test_networks_that_cannot_be_trained_are_refused_before_anything_is_written(train, tmp_path, choices, words):
    with pytest.raises(ConfigError, match=words):
        train("a", **choices)
    assert not (tmp_path / "a").exists()


def test_a_penalty_that_has_an_effect_is_no_fault(train):
    assert train("a", r1_gamma=1.0).images_seen == 192


def test_an_objective_that_reads_real_logits_must_say_so(monkeypatch, train):
    softplus = nn.functional.softplus
    losses = (lambda real, fake: softplus(fake - real).mean(), lambda real, fake: softplus(real - fake).mean())
    monkeypatch.setitem(gs.OBJECTIVES, "pair", gs.Objective(*losses))
    with pytest.raises(ConfigError, match="add g_sees_real=True"):
        train("a", objective="pair")
    monkeypatch.setitem(gs.OBJECTIVES, "pair", gs.Objective(*losses, g_sees_real=True))
    assert train("b", objective="pair").images_seen == 192


@pytest.mark.parametrize(("table", "row"), [("NETWORKS", 5), ("RECIPES", 5)])
def test_rows_of_another_kind_are_refused(monkeypatch, data, table, row):
    monkeypatch.setitem(getattr(gs, table), "strange", row)
    choices = {"network": "strange"} if table == "NETWORKS" else {"recipe": "strange"}
    with pytest.raises(ConfigError, match=rf"{table}\['strange'\]"):
        gs.train(data=data, images=64, **choices)


class AttendingG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.attention = nn.MultiheadAttention(spec.size, 2, batch_first=True)

    def forward(self, z, y):
        rows = super().forward(z, y)[:, 0]
        return torch.tanh(rows + self.attention(rows, rows, rows)[0])[:, None]


@pytest.mark.slow
def test_a_layer_with_several_outputs_is_reported_and_its_export_read_again(train, tmp_path):
    run = train("a", G=AttendingG)
    assert gs.report(run, out=tmp_path / "a.html").stat().st_size > 10_000
    file = gs.export(run, "pt2", out=tmp_path / "files") / "generator.pt2"
    np.testing.assert_allclose(
        gs.load(file).sample(3, seed=2).images.astype(int), run.sample(3, seed=2).images.astype(int), atol=1
    )


@pytest.mark.slow
def test_nothing_depends_on_what_the_caller_set_in_torch(train, tmp_path):
    def draw(run):
        samples = run.sample(3, seed=2).images
        found = gs.invert(run, samples[:1]).latents
        gs.export(run, "onnx", out=tmp_path / "files")
        return samples, found

    run = train("plain")
    wanted, expected = draw(run), weights(run)

    def check(name):
        again = train(name)
        assert_same(expected, weights(again))
        for found, other in zip(draw(again), wanted, strict=True):
            np.testing.assert_array_equal(found, other)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        check("autocast")
    with torch.no_grad():
        check("no-grad")
    with torch.inference_mode():
        check("inference")
    try:
        torch.set_default_dtype(torch.float64)
        check("double")
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        check("device")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pixels = (np.random.default_rng(0).random((100, 16, 16)) > 0.5).astype("uint8") * 255
    choices = {"images": 64, "out": tmp_path_factory.mktemp("runs") / "a", "trackers": "none"}
    return gs.train("mlp-small", data=gs.Images(pixels, name="noise"), progress="none", **choices)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: run.sample(seed=None), "seed is None"),
        (lambda run: run.sample(count=True), "count is True"),
        (lambda run: run.sample(labels=1.5), "a label is 1.5"),
        (lambda run: run.sample(latents=[["a"]]), "latents are no array of numbers"),
        (lambda run: run.sample(latents="none.npy"), "no file 'none.npy'"),
        (lambda run: run.sample(2, truncation="0.7"), "truncation is '0.7'"),
        (lambda run: gs.film(run, frame_ms="3"), "frame_ms is '3'"),
        (lambda run: gs.film(run, out=True), "out is True"),
        (lambda run: gs.walk(run, steps="3"), "steps is '3'"),
        (lambda run: gs.walk(run, seeds=3), "seeds are 3"),
        (lambda run: gs.directions(run, 1.5), "count is 1.5"),
        (lambda run: gs.export(run, out=""), "out is ''"),
        (lambda run: gs.handin(run, seed="x"), "seed is 'x'"),
        (lambda run: gs.train("mlp-small", classes=[]), "classes is empty"),
        (lambda run: gs.sweep("mlp-small", search=5), "search is 5"),
    ],
)
def test_arguments_of_another_kind_are_refused_in_one_sentence(trained, call, words):
    with pytest.raises(gs.GansmithError, match=words) as caught:
        call(trained)
    assert "\n" not in str(caught.value)


class Noisy(nn.Module):
    """A generator that adds noise of its own, as StyleGAN's does."""

    def __init__(self, spec, config):
        super().__init__()
        self.shape = (spec.channels, spec.size, spec.size)
        self.rows = nn.Linear(config.latent_dim, spec.channels * spec.size**2)

    def forward(self, z, y):
        return (self.rows(z) + torch.randn(len(z), self.rows.out_features)).tanh().view(-1, *self.shape)


def test_a_generator_that_draws_noise_draws_image_k_again(train):
    run = train("a", G=Noisy)
    state = torch.get_rng_state()
    model = gs.load(run.directory)
    first, again = (gs.invert(model, run.sample(2).images, seed=4).latents for _ in range(2))
    assert np.array_equal(first, again) and torch.equal(state, torch.get_rng_state())
    images, fewer = model.sample(70, seed=3).images, model.sample(5, seed=3).images
    assert np.array_equal(images[:5], fewer) and np.array_equal(images, model.sample(70, seed=3).images)
    z = torch.zeros(2, model.config.latent_dim)
    with torch.no_grad():
        assert not torch.equal(*model.network(z, torch.zeros(2).long()).split(1))
    assert gs.export(run.directory, "safetensors").is_dir()
    with pytest.raises(GansmithError, match="draws random numbers besides its latents.*as safetensors"):
        gs.export(run.directory, "onnx")


@pytest.mark.parametrize(
    "g_loss",
    [
        lambda real, fake: (real.mean() - fake.mean()).square(),
        lambda real, fake: nn.functional.softplus(real.detach().mean() - fake).mean(),
    ],
)
def test_a_loss_that_reads_real_logits_undeclared_is_refused(train, monkeypatch, g_loss):
    monkeypatch.setitem(gs.OBJECTIVES, "mine", gs.Objective(gs.OBJECTIVES["minimax"].d_loss, g_loss))
    with pytest.raises(ConfigError, match="add g_sees_real=True"):
        train("a", objective="mine")


def test_a_loss_may_ask_for_as_many_logits_as_a_batch_has(train, monkeypatch):
    g_loss = gs.Objective(gs.OBJECTIVES["minimax"].d_loss, lambda real, fake: -fake.topk(16).values.mean())
    monkeypatch.setitem(gs.OBJECTIVES, "mine", g_loss)
    assert train("a", objective="mine", batch_size=16).images_seen == 192


def test_a_classifier_needs_a_discriminator_in_halves(train):
    with pytest.raises(ConfigError, match="has no features to classify"):
        train("a", conditioning="labels", d_conditioning="classifier")


class Odd(G):
    """What is in no file, or cannot be made without memory."""

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.register_buffer("phases", torch.rand(32), persistent=False)
        self.shift = torch.rand(32)
        self.rates = [rate.item() for rate in torch.linspace(0.5, 1, 2)]
        self.to("cpu")

    def hidden(self, z):
        return torch.relu(self.first(z) * self.rates[1] + self.phases + self.shift)


def test_a_network_with_numbers_that_are_in_no_file_is_read_again(train):
    run = train("run", G=Odd)
    trained, read = run.generator.network, gs.load(run.directory).network
    z, y = torch.randn(4, run.config.latent_dim), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(trained(z, y), read(z, y)) and torch.equal(read.shift, trained.shift)


class Normed(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.first, self.last = nn.utils.spectral_norm(self.first), nn.utils.weight_norm(self.last)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("ema", [0.0, 0.1])
def test_norms_of_weights_by_hooks_are_copied_and_read(train, ema):
    run = train("run", G=Normed, ema=ema, evaluate_every=64, sample_every=64)
    assert run.status == "finished" and gs.load(run.directory).sample(4).images.std() > 0


class SigmoidG(G):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.end = nn.Sigmoid()

    def forward(self, z, y):
        return self.end(self.last(self.hidden(z))).view(-1, self.spec.channels, self.spec.size, self.spec.size)


class SigmoidD(D):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.end = nn.Sigmoid()

    def forward(self, images, y):
        return self.end(super().forward(images, y))


class GatedD(D):
    """A sigmoid inside, that is registered last."""

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.gate = nn.Sigmoid()

    def forward(self, images, y):
        logits = super().forward(images, y)
        return logits * self.gate(logits)


def test_sigmoids_inside_are_none_at_the_end(train):
    assert train("run", D=GatedD).status == "finished"


def test_sigmoids_at_the_ends_are_refused(train, monkeypatch):
    with pytest.raises(ConfigError, match="G ends in a sigmoid.*nn.Tanh"):
        train("run", G=SigmoidG)
    with pytest.raises(ConfigError, match="D ends in a sigmoid; losses take logits"):
        train("run", D=SigmoidD)
    own = gs.Objective(lambda real, fake: (fake - real).mean(), lambda real, fake: -fake.mean())
    monkeypatch.setitem(gs.OBJECTIVES, "of probabilities", own)
    assert train("run", D=SigmoidD, objective="of probabilities").status == "finished"


def test_a_loss_may_draw_random_numbers(train, monkeypatch):
    def g_loss(real, fake):
        targets = 0.8 + 0.2 * torch.rand_like(fake)
        return nn.functional.binary_cross_entropy_with_logits(fake, targets)

    own = gs.Objective(lambda real, fake: nn.functional.softplus(fake - real).mean(), g_loss)
    monkeypatch.setitem(gs.OBJECTIVES, "noisy", own)
    state = torch.get_rng_state()
    assert train("run", objective="noisy").status == "finished"
    assert torch.equal(torch.get_rng_state(), state)
