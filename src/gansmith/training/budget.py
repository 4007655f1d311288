"""From minutes to images: how long a run can be on this machine, its chores included."""

import math
import time

import torch

from gansmith import processes
from gansmith.conditioning import GOLDEN
from gansmith.config import Config
from gansmith.errors import TrainingFailed, reason_of
from gansmith.randomness import rng, seeded
from gansmith.recipes import ADAM
from gansmith.training.batches import Batches, take_step
from gansmith.training.calibration import finalise_generator
from gansmith.training.chores import GRID_COLUMNS, GRID_ROWS, GRIDS, MEASUREMENTS, interval, scores_in
from gansmith.training.graphs import WARM_UP
from gansmith.training.inputs import TrainingData
from gansmith.training.loop import LAST_PICTURES_S
from gansmith.training.machine import accelerator, find_device, use_threads, wait_for
from gansmith.training.monitor import Monitor
from gansmith.training.optimizers import renew_bases, set_learning_rates
from gansmith.training.state import start_networks
from gansmith.training.step import Networks, NonFiniteError
from gansmith.training.techniques import build_techniques

PROBE_S = 0.5  # of training on each device
# Of a run's time, at most: there are fewer of them in short runs, and of large images.
SCORES_SHARE, GRIDS_SHARE = 0.06, 0.03
FREE_CORES = 0.75  # threads that get less than this share of their time have to wait: .96 on an idle machine


def config_for_time(config: Config, data: TrainingData, seconds: float) -> Config:
    """Return the config with the length that this machine can train in so many seconds; at least one batch.

    Trains throw-away networks for about a hundredth of the time. Scores and grids that would take too much of it are
    made less often, which sets their intervals. Where other programs keep the cores from threads that were not asked
    for by number, it halves their number if that is faster: threads wait for one another at every turn.
    """
    probe = config.replace(images=10**12, schedule_images=0)
    networks = start_networks(probe, data.spec, data.conditioning.codes)
    measured_s = min(6.0, max(0.5, 0.01 * seconds))
    started_at = time.perf_counter()
    if data.scorer is not None:  # an evaluator that has to be trained is part of the time
        data.scorer.prepare(seconds)
        data.scorer.move_to(networks.device)
    image_s, share = _seconds_per_image(probe, networks, data, measured_s)
    is_cpu = networks.device.type == "cpu"
    is_free = is_cpu and config.threads == 0 and processes.count() == 1
    while is_free and share < FREE_CORES and torch.get_num_threads() > 1:
        halved = probe.replace(threads=torch.get_num_threads() // 2)
        use_threads(halved.threads)
        halved_s, share = _seconds_per_image(halved, networks, data, measured_s)
        if halved_s > image_s:
            use_threads(probe.threads)
            break
        probe, image_s = halved, halved_s
    score_s, grid_s, once_s = _seconds_of_chores(config, networks, data)
    chores_s, images, fewer = 0.0, max(config.batch_size, int(seconds / image_s)), dict[str, int]()
    scores = scores_in(config, images, data.scorer.cost if data.scorer else 1)
    for name, chore_s, usual, most in (
        ("evaluate_every", score_s, scores, SCORES_SHARE),
        ("sample_every", grid_s, GRIDS, GRIDS_SHARE),
    ):
        if getattr(config, name):
            chores_s += chore_s / interval(config.replace(images=images), name, usual)
            continue
        affordable = max(1, int(most * seconds / max(chore_s, 1e-9)))
        if affordable < usual:
            fewer[name] = affordable
        once_s += chore_s * min(usual, affordable)
    left_s = seconds - (time.perf_counter() - started_at) - once_s
    images = max(config.batch_size, int(max(left_s, 0.0) / (image_s + chores_s)))
    intervals = {name: math.ceil(images / count) for name, count in fewer.items()}
    changes = processes.agreed(lambda: {"images": images, **intervals})
    return config.replace(threads=probe.threads, **changes)


def choose_device(config: Config, data: TrainingData, *, is_new: bool) -> tuple[Config, list[str]]:
    """Return the config with the faster device for it where it leaves that open, and a sentence on the choice.

    Trains throw-away networks for a moment on the accelerator and on the CPU. Where there is no accelerator, or the
    config names a device, nothing is measured. An accelerator that fails is not taken.

    Args:
        is_new: the run begins, with the optimisers of `fit_to_device`.
    """
    found = accelerator()
    if config.device != "auto" or found is None:
        return config, []
    rates = {}
    for name in (found.type, "cpu"):
        placed = config.replace(device=name)
        try:
            fitted = fit_to_device(placed) if is_new else placed
            # A processor may be so slow that whole cycles would take much of the run.
            rates[name] = images_per_s(fitted, data, PROBE_S, at_most_s=10 * PROBE_S if name == "cpu" else math.inf)
        except (RuntimeError, TypeError) as error:  # TypeError: MPS has no float64
            # Of several processes, the others wait for this one.
            if name == "cpu" or isinstance(error, TrainingFailed) or processes.count() > 1:
                raise
            return config.replace(device="cpu"), [f"device is cpu, for {name} cannot train this: {reason_of(error)}"]
    best = max(rates, key=lambda name: rates[name])
    measured = " and ".join(f"{name} {rate:,.0f} images/s" for name, rate in rates.items())
    sentence = f"device is {best}, the faster one in a moment of training: {measured}; --device chooses another"
    return config.replace(device=best), [sentence]


def fit_to_device(config: Config) -> Config:
    """Return the config of a new run with Adam on an accelerator, where SOAP was not measured."""
    is_cpu = find_device(config.device).type == "cpu"
    return config if is_cpu else config.replace_open(ADAM.get(config.recipe, {}))


def images_per_s(config: Config, data: TrainingData, seconds: float, *, at_most_s: float = math.inf) -> float:
    """Return how many images a second throw-away networks are trained on, measured for so long.

    Args:
        at_most_s: after which a measurement ends that has not had whole cycles of steps.
    """
    probe = config.replace(images=10**12, schedule_images=0)
    networks = start_networks(probe, data.spec, data.conditioning.codes)
    return 1 / _seconds_per_image(probe, networks, data, seconds, at_most_s)[0]


def _seconds_per_image(
    config: Config, networks: Networks, data: TrainingData, measured_s: float, at_most_s: float = math.inf
) -> tuple[float, float]:
    """Return the seconds of a step per image, measured for so long, and the share of its threads' time a step got."""
    device, techniques = networks.device, build_techniques(config, networks.D)
    batches = Batches(config, data, device)
    cycle = min(64, math.lcm(config.penalty_every, config.d_steps))
    # With one cycle to spare, for steps in which beta2 moves are of their own shape.
    images_seen, measured, warm_up = 0, 0, 1 if batches.graphs is None else WARM_UP + 2
    warm_at = started_at = time.perf_counter()
    busy_at = time.process_time()
    while not measured or processes.agreed(lambda: time.perf_counter() - started_at < measured_s):
        for _ in range(cycle):  # whole cycles, so that steps with and without penalties keep their share
            # All over the schedule, since networks that grow are slower when they are large.
            turn = images_seen // config.batch_size
            progress = GOLDEN * turn % 1
            set_learning_rates(networks, config, progress)
            renew_bases(networks, turn)
            try:
                take_step(networks, techniques, batches, images_seen, progress)
            except NonFiniteError:  # the run itself will meet it, say so and record it
                seconds: float = processes.agreed(lambda: time.perf_counter() - started_at)
                return seconds / (images_seen + config.batch_size), 1.0
            images_seen += config.batch_size
            if at_most_s < math.inf:
                wait_for(device)
                seconds = processes.agreed(lambda: time.perf_counter() - started_at)
                if seconds > at_most_s:
                    return seconds / images_seen, 1.0
        wait_for(device)
        # The first cycles are slow: memory is fetched, kernels are chosen, steps are captured.
        if images_seen <= warm_up * cycle * config.batch_size:
            warm_at, busy_at = time.perf_counter(), time.process_time()
        else:
            measured = images_seen - warm_up * cycle * config.batch_size
    passed_s = time.perf_counter() - warm_at
    share = (time.process_time() - busy_at) / (passed_s * torch.get_num_threads())
    image_s, share = processes.agreed(lambda: [passed_s / measured, share])
    return image_s, share


def _seconds_of_chores(config: Config, networks: Networks, data: TrainingData) -> tuple[float, float, float]:
    """Return the seconds of a score, of a grid, and of what is done once in a run of this config."""
    started_at = time.perf_counter()
    finalise_generator(networks.G_ema, config, data.conditioning, data.pixel_moments)
    statistics_s = time.perf_counter() - started_at
    device = networks.device
    latents, y = torch.zeros(128, config.latent_dim, device=device), torch.zeros(128, dtype=torch.int64, device=device)
    started_at = time.perf_counter()
    with torch.no_grad(), seeded(rng("chores")):  # dropout and style mixing draw
        networks.G_ema(latents, y)
    wait_for(device)
    per_sample_s = (time.perf_counter() - started_at) / len(y)
    grid_s = statistics_s + GRID_COLUMNS * GRID_ROWS * per_sample_s
    monitor = Monitor(config, data.shown, data.validation, data.y, data.conditioning.frequencies)
    started_at = time.perf_counter()
    for _ in range(2):
        monitor.measure(networks.G, networks.D, 0)
    once_s = LAST_PICTURES_S + MEASUREMENTS * (time.perf_counter() - started_at) / 2
    if data.scorer is None:
        return 0.0, grid_s, once_s
    evaluators = [data.scorer.networks[name] for name in data.scorer.real]  # which measures the real images, once
    started_at = time.perf_counter()
    for evaluator in evaluators:
        evaluator.observe(data.train.pixels[:500])
    per_feature_s = (time.perf_counter() - started_at) / min(500, len(data.train))
    return data.scorer.count * (per_sample_s + per_feature_s), grid_s, once_s
