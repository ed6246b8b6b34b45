"""How the learning rate changes in training."""

from __future__ import annotations

import math


def rise_and_fall(step: int, n_steps: int, warm_up: int, rate: float, final_rate: float) -> float:
    """Return the learning rate of a step: a rise over the warm-up, then half a cosine down to the final rate."""
    if step < warm_up:
        return rate * (step + 1) / warm_up
    share = (step - warm_up) / max(1, n_steps - warm_up)
    falling = 0.5 * (1.0 + math.cos(math.pi * share))
    return final_rate + (rate - final_rate) * falling
