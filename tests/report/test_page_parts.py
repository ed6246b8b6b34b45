"""What the page is made of: images, drawings, the viewer's coordinates, words."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ensembles_of import adp_ensemble, chain_ensemble
from openmm_latent.report import maps
from openmm_latent.report.maps import image_of
from openmm_latent.report.page import number, span
from openmm_latent.report.svg import COLOURS, drawing_style, figure, to_svg
from openmm_latent.report.viewer import viewer_payload


def test_a_map_has_a_pixel_a_bin_and_is_clear_where_nothing_was_counted():
    counts = np.zeros((50, 50))
    counts[10, 40], counts[0, 0] = 100, 1
    data = image_of(counts)
    image = Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1]))).convert("RGBA")
    pixels = np.array(image)
    assert pixels.shape == (50, 50, 4)
    assert (pixels[..., 3] > 0).sum() == 2
    dark, bright = pixels[49 - 40, 10, :3], pixels[49, 0, :3]  # psi upwards, phi to the right
    assert bright.sum() > dark.sum()
    assert len(data) < 2000


def test_maps_are_limited(monkeypatch):
    monkeypatch.setattr(maps, "MAX_MAPS", 3)
    one = {"label": "ALA 1", "axes": "φ, ψ", "counts": [np.ones((50, 50))] * 2}
    assert len(maps.map_images([one] * 5)) == 3


def test_a_drawing_is_xml_takes_the_page_s_colours_and_keeps_its_ids_to_itself():
    with drawing_style():
        made, axis = figure()
        axis.plot([0, 1], [0, 1], color=COLOURS["sample"], label="<a & b>")
        axis.legend()
        drawn = to_svg(made, "first", 'says "so" & <more>')
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'says "so" & <more>'
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert "var(--sample)" in drawn
    assert "var(--ink)" in drawn
    assert COLOURS["sample"] not in drawn
    ids = re.findall(r'\bid="([^"]*)"', drawn)
    assert ids
    assert all(one.startswith("first-") for one in ids)
    assert all(one in ids for one in re.findall(r"url\(#([^)]*)\)", drawn))
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", drawn)


def test_the_viewer_s_coordinates_come_back():
    one = adp_ensemble((0, 5))
    structure = one.positions[0].astype(np.float64)
    payload = viewer_payload(one.molecule, structure, {"sample": one.positions})
    packed = payload["frames"]["sample"]
    numbers = np.frombuffer(base64.b64decode(packed["data"]), dtype="<i2").reshape(5, 10, 3)
    expected = 10.0 * (one.positions - structure.mean(axis=0))
    assert numbers / payload["per_angstrom"] == pytest.approx(expected, abs=0.006)
    assert payload["n_atoms"] == 10 == sum(line.startswith(("ATOM", "HETATM")) for line in payload["pdb"].splitlines())
    assert not payload["is_ribbon"]


def test_a_large_molecule_is_shown_by_its_backbone():
    one = chain_ensemble(1200, 4, seed=1)
    payload = viewer_payload(one.molecule, one.positions[0].astype(np.float64), {"sample": one.positions})
    assert payload["n_atoms"] == 1200  # Cα alone are all backbone
    assert not payload["is_ribbon"]  # a ribbon needs the rest of it


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "nm", "–"),
        (0.012345, "nats", "0.0123 nats"),
        (1234.0, "ps", "1.23 ns"),
        (0.00001234, "", "1.2e-05"),
        (0.0, "", "0"),
    ],
)
def test_numbers_in_words(value, unit, words):
    assert number(value, unit) == words


def test_intervals_in_words():
    assert span(None, "nm") == ""
    assert span((0.1, 0.2), "nm") == "0.1 to 0.2 nm"
    assert span((500.0, 1500.0), "ps") == "0.5 to 1.5 ns"
