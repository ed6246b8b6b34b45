"""What the propagators' fits share: lagged pairs, the chronological validation part, and the training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require

#: Called after every epoch with (epoch, n_epochs, training loss, validation loss).
Progress = Callable[[int, int, float, float], None]


def lagged_pairs(segments: Sequence[np.ndarray], lag_frames: int) -> tuple[Tensor, Tensor]:
    """Join (frame, frame one lag later) of all segments, never across two of them.

    Parameters
    ----------
    segments : list of array, (n_frames, n_latent)
        Standardised latents in time order.
    lag_frames : int

    Returns
    -------
    (now, later) : Tensor, (n_pairs, n_latent), float32

    Raises
    ------
    LatentError
        Shapes differ, a value is not finite, or no segment is longer than the lag.
    """
    require(lag_frames >= 1, f"lag_frames must be at least 1, got {lag_frames}; give the lag time in frames")
    widths = {np.asarray(segment).shape[1:] for segment in segments}
    require(
        len(widths) == 1 and len(next(iter(widths))) == 1,
        f"segments must all have shape (n_frames, n_latent), got trailing shapes {sorted(widths)}; encode them alike",
    )
    arrays = [np.asarray(segment, dtype=np.float32) for segment in segments]
    require(
        all(bool(np.isfinite(array).all()) for array in arrays),
        "segments must be finite, got NaN or infinite latents; check the encoder's training",
    )
    long = [array for array in arrays if len(array) > lag_frames]
    require(
        len(long) > 0,
        f"segments must be longer than lag_frames={lag_frames}, the longest has {max(map(len, arrays), default=0)} "
        "frames; shorten the lag time",
    )
    now = np.concatenate([array[:-lag_frames] for array in long])
    later = np.concatenate([array[lag_frames:] for array in long])
    return torch.from_numpy(now), torch.from_numpy(later)


def split_validation(segments: Sequence[np.ndarray], fraction: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Split every segment in time: the last `fraction` of it validates.

    Returns
    -------
    (training, validation) : lists of array, (n_frames, n_latent)
    """
    require(0.0 < fraction < 1.0, f"validation fraction must lie between 0 and 1, got {fraction}; 0.1 is usual")
    cuts = [len(segment) - max(1, round(len(segment) * fraction)) for segment in segments]
    training = [segment[:cut] for segment, cut in zip(segments, cuts, strict=True)]
    validation = [segment[cut:] for segment, cut in zip(segments, cuts, strict=True)]
    return training, validation


def linear_prediction(now: Tensor, later: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit later = matrix (now) + offset by least squares, in float64.

    Returns
    -------
    matrix : Tensor, (n_latent, n_latent), so that `now @ matrix.T + offset` predicts
    offset : Tensor, (n_latent,)
    covariance : Tensor, (n_latent, n_latent), of the residual
    """
    x, y = now.double(), later.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred_x, centred_y = x - mean_x, y - mean_y
    ridge = 1e-8 * torch.eye(x.shape[1], dtype=torch.float64)
    matrix = torch.linalg.solve(centred_x.T @ centred_x / len(x) + ridge, centred_x.T @ centred_y / len(x)).T
    residual = centred_y - centred_x @ matrix.T
    return matrix, mean_y - matrix @ mean_x, residual.T @ residual / len(x)


def kinetic_axes(now: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Return TICA's directions (reversible), of unit variance and uncorrelated, slowest first.

    Parameters
    ----------
    now, later : Tensor, (n_pairs, n_latent)

    Returns
    -------
    axes : Tensor, (n_latent, n_latent), a direction a row; applied to centred latents as `x @ axes.T`
    memory : Tensor, (n_latent,), autocorrelation of each at the lag

    Source: G. Pérez-Hernández et al., J. Chem. Phys. 139, 015102 (2013); scaled by `memory` they are the kinetic map of
    F. Noé and C. Clementi, J. Chem. Theory Comput. 11, 5002 (2015).
    """
    x, y = now.double(), later.double()
    mean = 0.5 * (x.mean(0) + y.mean(0))
    x, y = x - mean, y - mean
    covariance = 0.5 * (x.T @ x + y.T @ y) / len(x)
    lagged = 0.5 * (x.T @ y + y.T @ x) / len(x)
    variances, axes = torch.linalg.eigh(covariance)
    whiten = axes / torch.sqrt(variances.clamp(min=1e-10))  # columns of unit variance
    memory, rotation = torch.linalg.eigh(whiten.T @ lagged @ whiten)
    order = torch.argsort(memory.abs(), descending=True)
    return (whiten @ rotation)[:, order].T.float(), memory[order].float()


def train_best(
    module: nn.Module,
    loss: Callable[[int, Tensor], Tensor],
    n_items: int,
    validate: Callable[[], float],
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    seed: int,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
    progress: Progress | None = None,
) -> nn.Module:
    """Train with Adam, a cosine schedule and early stopping; leave the best weights (by validation) in `module`.

    Parameters
    ----------
    loss : callable
        Takes (step, indices of a batch) and returns the loss to go down.
    n_items : int
        Training items to shuffle each epoch.
    validate : callable
        Returns the validation loss; the module is in evaluation mode.
    patience : int
        Epochs without a better validation loss before it stops.
    averaging : float
        Decay of the exponential average of the weights that is validated and kept; 0 keeps the weights themselves.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_epochs, eta_min=0.02 * learning_rate)
    average = {name: value.detach().clone() for name, value in module.named_parameters()}
    module.eval()
    best, best_weights, waited, step = validate(), copy.deepcopy(module.state_dict()), 0, 0
    for epoch in range(n_epochs):
        module.train()
        total, n_batches = 0.0, 0
        for batch in torch.randperm(n_items, generator=generator).split(batch_size):
            optimiser.zero_grad(set_to_none=True)
            value = loss(step, batch)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimiser.step()
            _follow(average, module, min(averaging, step / (step + 10.0)))
            total, n_batches, step = total + float(value.detach()), n_batches + 1, step + 1
        schedule.step()
        module.eval()
        own = {name: value.detach().clone() for name, value in module.named_parameters()}
        module.load_state_dict(average, strict=False)
        current = validate()
        if progress is not None:
            progress(epoch + 1, n_epochs, total / n_batches, current)
        waited += 1
        if current < best:
            best, best_weights, waited = current, copy.deepcopy(module.state_dict()), 0
        if waited >= patience:
            break
        module.load_state_dict(own, strict=False)
    module.load_state_dict(best_weights)
    module.eval()
    return module


def _follow(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Move an exponential average of the weights one step."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            average[name].lerp_(value, 1.0 - decay)


def gaussian_mixture(
    samples: Tensor, n_components: int, seed: int, n_iterations: int = 30, floor: float = 1e-3
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture of full Gaussians by expectation maximisation from k-means centres.

    Parameters
    ----------
    samples : Tensor, (n_samples, n_latent)
    floor : float
        Added to each covariance's diagonal, so that no component collapses on few samples.

    Returns
    -------
    weights : Tensor, (n_components,)
    centres : Tensor, (n_components, n_latent)
    roots : Tensor, (n_components, n_latent, n_latent), lower triangular, covariance = roots roots^T

    Source: C. Bishop, Pattern Recognition and Machine Learning (2006), section 9.2.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(len(samples), generator=generator)[: max(20_000, 200 * n_components)]
    points = samples[kept].double()
    # k-means on the sample, started from random points
    centres = points[torch.randperm(len(points), generator=generator)[:n_components]]
    require(
        len(centres) == n_components,
        f"n_components must not exceed the {len(points)} training frames, got {n_components}; take fewer components",
    )
    for _ in range(20):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        members = nn.functional.one_hot(nearest, n_components).double()
        counts = members.sum(0)
        centres = torch.where(counts[:, None] > 0, (members.T @ points) / counts.clamp(min=1)[:, None], centres)
    ridge = floor * torch.eye(points.shape[1], dtype=torch.float64)
    shared = points.T.cov() / n_components
    for _ in range(n_iterations):
        total = members.sum(0) + 1e-6
        weights = total / total.sum()
        centres = torch.where(total[:, None] > 1e-3, (members.T @ points) / total[:, None], centres)
        difference = points.unsqueeze(0) - centres.unsqueeze(1)  # (n_components, n_samples, n_latent)
        spread = difference.transpose(1, 2) @ (members.T.unsqueeze(2) * difference)
        # A prior worth n_latent + 2 samples keeps small components from closing in on their own members.
        prior = float(points.shape[1] + 2)
        covariances = (spread + prior * shared) / (total + prior)[:, None, None] + ridge
        roots = torch.linalg.cholesky(covariances)
        whitened = torch.linalg.solve_triangular(roots, difference.transpose(1, 2), upper=False)
        log_widths = torch.log(torch.diagonal(roots, dim1=1, dim2=2)).sum(dim=1)
        log_each = torch.log(weights) - 0.5 * whitened.square().sum(dim=1).T - log_widths
        members = torch.softmax(log_each, dim=1)
    return weights.float(), centres.float(), roots.float()
