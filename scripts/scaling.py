"""Measure one process against two, one thread each, and compute from that how a recipe scales to 1,024 processes.

    python scripts/scaling.py [RECIPE ...] [--seconds 8] [--repeats 3]

Processes are started as torchrun starts them. The figures of one and two processes are measured in turn, and the
median of the repeats counts. docs/scaling.md says how the table is computed.
"""

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time

# Stated figures of networks: seconds before the first byte, and bytes a second, each way.
NETWORKS = {
    "10 Gbit/s Ethernet": (50e-6, 1.25e9),
    "100 Gbit/s InfiniBand": (3e-6, 12.5e9),
    "400 Gbit/s InfiniBand": (3e-6, 50e9),
}
PROCESSES = (2, 4, 8, 16, 64, 256, 1024)


def measure(recipe: str, seconds: float) -> dict[str, float]:
    """Return seconds of a step of this process's share, and what the processes exchange in it."""
    import torch

    from gansmith import processes
    from gansmith.config import resolve
    from gansmith.training.batches import Batches, take_step
    from gansmith.training.inputs import load_training_data
    from gansmith.training.machine import training_machine
    from gansmith.training.state import start_networks
    from gansmith.training.techniques import build_techniques

    processes.join()
    config = resolve(recipe, arguments={"threads": 1, "images": 10**9})
    with training_machine(config):
        config, data = load_training_data(config)
        networks = start_networks(config, data.spec, data.conditioning.codes)
        batches, techniques = Batches(config, data), build_techniques(config, networks.D)
        exchanged: list[int] = []
        _count_bytes(processes, exchanged)
        step, cycle = 0, math.lcm(config.penalty_every, config.d_steps)

        def take_cycle() -> None:
            nonlocal step
            for _ in range(cycle):
                take_step(networks, techniques, batches, step * config.batch_size, 0.3)
                step += 1

        take_cycle()
        exchanged.clear()
        started_at, first = time.perf_counter(), step
        while processes.agreed(lambda: time.perf_counter() - started_at < seconds):
            take_cycle()
        passed_s, steps = time.perf_counter() - started_at, step - first
        draws_s = _seconds_of_draws(batches, config)
    exchanges = [sum(sizes) / steps for sizes in ([1] * len(exchanged), exchanged)]
    gradients = [sum(p.numel() for p in network.parameters()) * 4 for network in (networks.G, networks.D)]
    return {
        "step_s": passed_s / steps,
        "batch": config.batch_size,
        "exchanges": exchanges[0],
        "bytes": exchanges[1],
        "gradient_bytes": gradients[0] / config.d_steps + gradients[1],
        "draws_s": draws_s,
        "threads": torch.get_num_threads(),
    }


def _count_bytes(processes, exchanged: list[int]) -> None:
    """Note the bytes of each exchange of a step."""
    from gansmith.networks import layers

    total, gather = processes._totals, processes.of_all

    def counted_total(parts):
        exchanged.append(sum(part.nbytes for part in parts))
        return total(parts)

    def counted_gather(values):
        exchanged.append(values.nbytes)
        return gather(values)

    processes._totals, processes.of_all = counted_total, counted_gather
    layers.of_all = counted_gather


def _seconds_of_draws(batches, config) -> float:
    """Return the seconds that drawing the latents of one whole batch takes, which every process does."""
    from gansmith.randomness import rng

    started_at = time.perf_counter()
    for k in range(200):
        batches._latents(rng(config.seed, k, "latent"))
    return (time.perf_counter() - started_at) / 200


def run(recipe: str, count: int, seconds: float) -> dict[str, float]:
    """Return what process 0 of so many measures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, __file__, recipe, "--seconds", str(seconds), "--worker"]
    started = []
    for number in range(count):
        launched = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environment = {**os.environ, **{name: str(value) for name, value in launched.items()}}
        started.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"a process of {recipe} failed")
    return json.loads(printed[0].splitlines()[-1])


def exchange_s(size: float, exchanges: float, processes: int, latency_s: float, bytes_per_s: float) -> float:
    """Return the seconds of all exchanges of a step: trees for their latency, rings for their bytes.

    Source: Thakur et al. 2005, Optimization of collective communication operations in MPICH, section 4.5.
    """
    return 2 * math.log2(processes) * latency_s * exchanges + 2 * (processes - 1) / processes * size / bytes_per_s


def table(one: dict[str, float], network: str) -> list[tuple[int, float, float]]:
    """Return processes, images a second and efficiency, each process having the recipe's batch."""
    rows = []
    for count in PROCESSES:
        extra_s = exchange_s(one["bytes"], one["exchanges"], count, *NETWORKS[network])
        extra_s += (count - 1) * one["draws_s"]
        rate = count * one["batch"] / (one["step_s"] + extra_s)
        rows.append((count, rate, one["step_s"] / (one["step_s"] + extra_s)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["default"])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", action="store_true")
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps(measure(asked.recipes[0], asked.seconds)))
        return
    for recipe in asked.recipes:
        found = {1: [], 2: []}
        for _ in range(asked.repeats):
            for count in found:
                found[count].append(run(recipe, count, asked.seconds))
        rates = {count: [m["batch"] / m["step_s"] for m in measured] for count, measured in found.items()}
        one, two = (statistics.median(rates[count]) for count in (1, 2))
        ratios = sorted(b / a for a, b in zip(rates[1], rates[2], strict=True))
        print(f"{recipe}: 1 process {one:,.0f} images/s, 2 processes {two:,.0f}: {two / one:.2f} times as many")
        print(f"  pairs: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
        both = found[1][0] | {name: found[2][0][name] for name in ("bytes", "exchanges")}
        print(
            f"  a step: {both['step_s'] * 1e3:.1f} ms, {both['exchanges']:.1f} exchanges, {both['bytes'] / 1e6:.2f} MB"
        )
        print(
            f"  gradients {both['gradient_bytes'] / 1e6:.2f} MB a step, latents {both['draws_s'] * 1e6:.0f} us a batch"
        )
        for network in NETWORKS:
            cells = ", ".join(f"{count}: {share:.0%}" for count, _, share in table(both, network))
            print(f"  {network}: {cells}")


if __name__ == "__main__":
    main()
