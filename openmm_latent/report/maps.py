"""Torsion surfaces as tiny images, one pixel a bin, for any number of residues to choose from."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

#: Heights that a map's colours cover [kT].
HIGHEST = 6.0
#: Residues that can be chosen, at most: each costs about 5 kB.
MAX_MAPS = 500


def map_images(maps: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return label, axes and the images (data URIs) of reference and sample for each residue."""
    return [
        {
            "label": one["label"],
            "axes": one["axes"],
            "reference": image_of(one["counts"][0]),
            "sample": image_of(one["counts"][1]),
        }
        for one in maps[:MAX_MAPS]
    ]


def image_of(counts: np.ndarray) -> str:
    """Return -ln p of a histogram, (n, n) with phi along the first axis, as a PNG with transparent empty bins."""
    import matplotlib
    from PIL import Image

    with np.errstate(divide="ignore"):
        height = -np.log(counts / counts.max())
    colours = (matplotlib.colormaps["viridis"](np.clip(height / HIGHEST, 0, 1)) * 255).astype(np.uint8)
    colours[..., 3] = np.where(counts > 0, 255, 0)
    # Images run down from the top left: psi upwards, phi to the right.
    image = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 0, 2)[::-1]), "RGBA")
    store = io.BytesIO()
    image.quantize(64).save(store, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(store.getvalue()).decode()
