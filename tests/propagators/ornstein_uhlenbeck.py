"""A linear test system whose moments and timescales are known in closed form."""

import numpy as np

#: Decay of each independent mode in one frame; timescales are -1 / ln of it, in frames.
DECAY = np.array([0.9, 0.6, 0.2])
#: Mixes the modes into latents, so that nothing is diagonal.
MIXING = np.array([[1.0, 0.4, -0.2], [-0.3, 0.9, 0.5], [0.2, -0.6, 1.1]])
COVARIANCE = MIXING @ MIXING.T
#: One-frame propagator of the latents.
STEP = MIXING @ np.diag(DECAY) @ np.linalg.inv(MIXING)
NOISE = COVARIANCE - STEP @ COVARIANCE @ STEP.T


def ou_segments(n_segments: int, n_frames: int, seed: int) -> list[np.ndarray]:
    """Draw stationary segments: list of (n_frames, 3) float32."""
    random = np.random.default_rng(seed)
    modes = random.standard_normal((n_segments, 3))
    frames = np.zeros((n_frames, n_segments, 3))
    for frame in frames:
        frame[:] = modes
        modes = DECAY * modes + np.sqrt(1 - DECAY**2) * random.standard_normal((n_segments, 3))
    latents = (frames @ MIXING.T).astype(np.float32)
    return [latents[:, segment] for segment in range(n_segments)]


def ou_log_density(later: np.ndarray, now: np.ndarray, lag_frames: int) -> np.ndarray:
    """Return the exact ln p(later | now): (b, 3), (b, 3) -> (b,)."""
    step = np.linalg.matrix_power(STEP, lag_frames)
    noise = COVARIANCE - step @ COVARIANCE @ step.T
    difference = later - now @ step.T
    quadratic = np.einsum("bi,ij,bj->b", difference, np.linalg.inv(noise), difference)
    return -0.5 * (quadratic + np.log(np.linalg.det(2 * np.pi * noise)))
