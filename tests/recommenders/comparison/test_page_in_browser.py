"""The page in a real browser: on a phone and on a desk, by keyboard, without a network."""

import pytest

from sgfd.recommenders.comparison import contrasts, write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(fake_comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    comparison = fake_comparison(14, 6, 5, protocols=("honest",))
    write_report(comparison, contrasts(comparison, ("recall@20", "ndcg@20")), folder)
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_works_by_keyboard_and_fetches_nothing(browser, address, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 800})
    wrong, fetched = [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(address)
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert took < 2000
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    table = page.locator("table").first
    button = table.locator("th button").nth(3)
    numbers = "e => [...e.tBodies[0].rows].map(r => +r.children[3].dataset.v)"
    for order in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        values = table.evaluate(numbers)
        assert values == sorted(values, reverse=order == "descending")
        assert button.evaluate("b => b.parentElement.getAttribute('aria-sort')") == order

    drawn = page.locator("svg:visible").first.evaluate(
        "s => parseFloat(getComputedStyle(s.querySelector('text')).fontSize) * "
        "s.getBoundingClientRect().width / s.viewBox.baseVal.width"
    )
    assert drawn >= 13.5

    page.locator("#metric").focus()
    page.keyboard.press("ArrowDown")
    assert not table.is_visible()
    assert page.locator("[data-metric='ndcg@20'] table").first.is_visible()
    page.screenshot(path=str(tmp_path / f"{width}.png"))
    assert wrong == []
    assert fetched == [address]
    page.close()
