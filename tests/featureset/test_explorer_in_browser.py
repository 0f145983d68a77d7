"""The page in a real browser: on a phone and on a desk, by mouse and by keyboard."""

import numpy as np
import pytest

from sgfd import dataset, distill
from sgfd.distill.source_items import source_items
from sgfd.featureset import load
from sgfd.featureset.explorer import Generic, SourceItems, explorer_page

HURT = "<img src=x onerror=document.title='hurt'><b>bold</b>"


class Opened:
    """A page, and what it complained of and fetched."""

    def __init__(self, browser, path, width):
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.wrong, self.fetched, self.address = [], [], path.as_uri()
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(self.address)
        self.page.wait_for_selector("#room:not([hidden])")

    def name(self):
        return self.page.locator("#name").inner_text()

    def near(self, kind):
        return self.page.locator(f"[data-kind={kind}] .near .title").all_inner_texts()

    def find(self, text):
        self.page.locator("#search").focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def close(self):
        assert self.wrong == []
        assert self.fetched == [self.address]
        self.page.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The page of the made-up sample, one of whose titles is hostile."""
    folder = tmp_path_factory.mktemp("explorer")
    sample = dataset.load_dataset("sample")
    distill.distill(sample, folder / "set", method="pca")
    opened = load(folder / "set")
    known = source_items(opened, sample)
    titles = np.array([f"Thing number {i}" for i in range(opened.n_items)], dtype=object)
    titles[3] = HURT
    titles[4] = "Ünïque gadget"
    path = folder / "page.html"
    path.write_text(explorer_page(opened, SourceItems(titles, known.generic)))
    return path, titles, opened


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_is_searched_and_walked_by_keyboard(browser, small, width, tmp_path):
    path, titles, opened = small
    shown = Opened(browser, path, width)
    page = shown.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    shown.find("unique GADG")  # neither accents nor case matter
    assert page.locator("#found [role=option]").count() == 1
    page.keyboard.press("Enter")
    assert shown.name() == "Ünïque gadget"
    assert not page.locator("#found").is_visible()

    shown.find("thing")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#found [aria-selected=true]")
    assert chosen.get_attribute("id") == page.locator("#search").get_attribute(
        "aria-activedescendant"
    )
    words = chosen.inner_text().splitlines()[0]
    page.keyboard.press("Enter")
    assert shown.name() == words

    # The neighbours are buttons: Tab reaches one, Enter opens it, and Back returns.
    row = titles.tolist().index(words)
    for kind in ("distilled", "generic"):
        assert len(shown.near(kind)) == 10
    cosines = np.zeros(opened.n_items)
    for rows in opened.modalities.values():
        unit = np.nan_to_num(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        cosines += unit @ unit[row]
    cosines[row] = -np.inf
    assert shown.near("distilled")[0] == titles[np.argmax(cosines)]
    first = shown.near("generic")[0]
    page.locator("[data-kind=generic] .near").first.focus()
    page.keyboard.press("Enter")
    assert shown.name() == first
    page.go_back()
    assert shown.name() == words

    canvas = page.locator("#map")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    moved = shown.name()
    assert moved != words
    assert page.locator("#pointed").inner_text() == moved
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.screenshot(path=str(tmp_path / f"{width}.png"), full_page=True)
    shown.close()


def test_what_comes_from_data_is_text(browser, small):
    shown = Opened(browser, small[0], 1280)
    shown.find("onerror")
    shown.page.keyboard.press("Enter")
    assert shown.name() == HURT
    assert shown.page.title() != "hurt"
    assert shown.page.locator("b").count() == 0
    shown.close()


def test_an_item_of_the_map_is_opened_by_a_click_and_coloured_by_label(browser, small):
    shown = Opened(browser, small[0], 1280)
    before = shown.name()
    pixels = (
        "c => new Set(new Uint32Array(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )
    canvas = shown.page.locator("#map")
    assert canvas.evaluate(pixels) > 3
    assert shown.page.locator("#legend li").count() > 1
    box = canvas.bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for share in np.linspace(0.3, 0.7, 9):  # somewhere on this line there is an item
        canvas.click(position={"x": box["width"] * share, "y": box["height"] / 2})
    assert shown.name() != before
    shown.page.locator("#label").select_option("1")
    assert shown.page.locator("#legend li").count() == 2
    shown.page.locator("#kind").select_option("1")
    shown.close()


def test_an_address_names_an_item(browser, small):
    path, titles, opened = small
    shown = Opened(browser, path, 1280)
    shown.page.goto(f"{shown.address}#item={opened.item_ids[7]}")
    assert shown.name() == titles[7]
    shown.close()


def test_office_is_small_and_finds_its_items_by_title(browser, shared_data, tmp_path):
    office = dataset.load_dataset("office", shared_data)
    distill.distill(office, tmp_path / "office", method="pca")
    opened = load(tmp_path / "office")
    page = explorer_page(opened, source_items(opened, office))
    assert len(page.encode()) < 5_000_000
    (tmp_path / "office.html").write_text(page)
    shown = Opened(browser, tmp_path / "office.html", 360)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
    shown.find("pencil sharpener")
    assert shown.page.locator("#found [role=option]").count() > 5
    shown.page.locator("#found [role=option]").first.click()
    assert "Pencil Sharpener" in shown.name()
    near = shown.near("distilled"), shown.near("generic")
    assert [len(each) for each in near] == [10, 10]
    shown.page.locator("[data-kind=distilled] .near").first.click()
    assert shown.name() == near[0][0]
    shown.close()


@pytest.mark.slow
def test_a_hundred_thousand_items_are_still_usable(browser, make_rows_set, tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    kind = rng.integers(0, 40, 100_000)
    rows = (centres[kind] + rng.normal(size=(100_000, 16))).astype(np.float32)
    labels = np.array([f"Kind {number}" for number in range(40)], dtype=object)[kind]
    make_rows_set(tmp_path / "many", {"image": rows}, labels=labels)
    titles = np.array(
        [f"Thing {i} of a rather long title {i % 977}" for i in range(100_000)], object
    )
    generic = Generic(rows[:, :8], np.arange(100_000), np.zeros(8), np.ones(8))
    page = explorer_page(load(tmp_path / "many"), SourceItems(titles, {"image": generic}))
    assert len(page.encode()) < 20_000_000
    (tmp_path / "many.html").write_text(page)
    shown = Opened(browser, tmp_path / "many.html", 1280)
    assert shown.page.evaluate("performance.now()") < 10_000
    shown.page.evaluate("window.began = performance.now()")
    shown.find("thing 99999")
    shown.page.keyboard.press("Enter")
    assert shown.name().startswith("Thing 99999 ")
    assert shown.page.evaluate("performance.now() - window.began") < 5_000
    assert len(shown.near("distilled")) == 10
    shown.page.locator("#map").focus()
    shown.page.keyboard.press("ArrowLeft")
    assert not shown.name().startswith("Thing 99999 ")
    shown.page.screenshot(path=str(tmp_path / "many.png"))
    shown.close()
