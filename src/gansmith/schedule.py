"""How rates and weights change during a run: pure functions of progress, 0 at the start and 1 at the end."""

import math


def decay(progress: float, start: float) -> float:
    """1 until `start`, then a straight line to 0 at the end; beyond the end it stays at its last step's value."""
    return 1.0 if start >= 1.0 else min(1.0, max(0.0, 1.0 - progress) / (1.0 - start))


def fading_boost(progress: float, boost: float, until: float) -> float:
    """A factor that falls from `boost` to 1 by half a cosine, reached at `until`."""
    if progress >= until:
        return 1.0
    return 1.0 + (boost - 1.0) * 0.5 * (1.0 + math.cos(math.pi * progress / until))


def ema_decay(images_seen: int, batch: int, half_life_fraction: float) -> float:
    """How much of the average survives one step, for a half-life that grows with the images seen so far."""
    half_life = half_life_fraction * images_seen
    return float(0.5 ** (batch / half_life)) if half_life > 0 else 0.0
