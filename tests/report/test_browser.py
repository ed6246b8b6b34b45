"""The page in a headless Chromium, offline: it opens without an error, the viewer shows atoms, the plots are there."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: on Debian apt-get install chromium")

#: WebGL without a GPU; as root, which CI is, Chromium runs without its sandbox only.
OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as browsers:
        opened = browsers.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def laptop(browser, report):
    """Open the report offline; return the tab and what went wrong."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, color_scheme="light", offline=True)
    tab, faults = context.new_page(), []
    tab.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    tab.goto((report / "report.html").as_uri())
    tab.wait_for_selector("#stage[data-ready]", timeout=60_000)
    return tab, faults


def pixels(tab) -> np.ndarray:
    """Return what the viewer's canvas shows, (height, width, 3)."""
    picture = tab.locator("#stage canvas").first.screenshot()
    return np.array(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def n_drawn(image: np.ndarray) -> int:
    """Count pixels that are not the background, which the corner has."""
    return int((np.abs(image - image[2, 2]).sum(axis=2) > 40).sum())


def test_it_opens_without_errors_or_requests(laptop):
    _, faults = laptop
    assert [fault for fault in faults if "GPU stall" not in fault] == []  # Chromium on the software renderer


def test_the_viewer_shows_atoms(laptop):
    tab, _ = laptop
    assert tab.evaluate("openmmLatent.viewer.selectedAtoms({}).length") == 20  # ten heavy atoms, twice
    assert n_drawn(pixels(tab)) > 500


def test_one_ensemble_can_be_hidden(laptop):
    tab, _ = laptop
    both = n_drawn(pixels(tab))
    tab.check("input[name=shown][value=reference]")
    alone = n_drawn(pixels(tab))
    tab.check("input[name=shown][value=both]")
    assert 100 < alone < both


def test_frames_can_be_chosen_and_played(laptop):
    tab, _ = laptop
    first = pixels(tab)
    tab.locator("#frame").fill("30")
    tab.wait_for_selector('#stage[data-frame="30"]')
    assert tab.locator("#frame-words").inner_text() == "frame 31"
    assert np.abs(pixels(tab) - first).sum() > 10_000
    tab.locator("#play").press("Enter")  # by keyboard
    tab.wait_for_selector('#stage:not([data-frame="30"])')
    assert tab.locator("#play").inner_text() == "Pause"
    tab.locator("#play").press("Enter")
    assert tab.locator("#play").inner_text() == "Play"


def test_plots_are_there_and_have_words(laptop):
    tab, _ = laptop
    plots = tab.locator("svg[data-plot]")
    names = plots.evaluate_all("all => all.map(one => one.dataset.plot)")
    expected = "map-reference map-sample surfaces lines torsions rmsf components timescales jumps energies"
    assert set(expected.split()) <= set(names)
    for box in plots.evaluate_all("all => all.map(one => [one.clientWidth, one.clientHeight])"):
        assert min(box) > 150
    assert all(plots.evaluate_all("all => all.map(one => one.getAttribute('aria-label').length > 10)"))


def test_torsion_maps_change_with_the_choice_and_show_colours(laptop):
    tab, _ = laptop
    assert tab.locator("#map-sample").get_attribute("href").startswith("data:image/png")
    picture = tab.locator("svg[data-plot=map-sample]").screenshot()
    assert len(np.unique(np.array(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(laptop, scheme):
    tab, _ = laptop
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    colours = tab.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    ink, paper = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert (ink > paper) == (scheme == "dark")


def test_nothing_went_wrong_all_the_while(laptop):
    _, faults = laptop
    assert [fault for fault in faults if "GPU stall" not in fault] == []
