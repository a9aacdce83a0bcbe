"""The real site in a real browser, from file://: nothing overflows or asks the network, tables and sliders do what they say, and axe finds nothing.

Needs the extra `browser` (Playwright and axe) and Chromium, the system's or Playwright's own. `ROBUSTACC_SITE` names a site that is built already.
"""
import csv
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from robustacc.site import __main__ as site

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'robustacc[browser]'")
WIDTHS, THEMES = (1400, 1280, 390), ("light", "dark")
KINDS = ("index.html", "findings/index.html", "findings/separated.html", "findings/constructed.html", "findings/how-robust.html", "findings/random-labels.html", "findings/proved-trade-off.html", "findings/cost.html", "findings/label-noise.html", "findings/smoothness.html",
         "findings/ledger.html", "findings/closest-pairs.html", "findings/explorer.html", "tables/index.html", "tables/table-1.html", "tables/table-2.html", "tables/table-5.html",
         "tables/table-8.html", "runs/index.html", "runs/results-mnist.html", "runs/separation-mnist.html", "runs/separation-svhn.html", "runs/train-mnist.html",
         "rows/mnist-cnn2-at-quick.html", "rows/cifar10-cnn2-at-medium.html", "runs/schedule-cifar10.html", "nearest_category.html", "separation.html", "methods.html", "data.html", "attacks.html", "site_render.html")  # a page of each kind
OVERFLOW = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth, edge = document.querySelector('main').getBoundingClientRect().right + 2, out = [];
  if (wide > 1) out.push(`the page by ${wide}`);
  for (const element of document.querySelectorAll('main *')) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= edge) continue;
    let framed = false;
    for (let above = element.parentElement; above && above.tagName !== 'MAIN'; above = above.parentElement) framed ||= getComputedStyle(above).overflowX !== 'visible';
    if (!framed) out.push(`${element.tagName} by ${Math.round(box.right - edge)}: ${element.textContent.slice(0, 60)}`);
  }
  return out.slice(0, 5);
}"""
CUT = """() => [...document.querySelectorAll('main .table-frame > table.designed, main .cell-output table.designed')].filter(table => table.parentElement.closest('.table-frame, .cell-output').scrollWidth
  > table.parentElement.closest('.table-frame, .cell-output').clientWidth + 1).map(table => table.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    if given := os.environ.get("ROBUSTACC_SITE"): return Path(given).resolve()
    out = tmp_path_factory.mktemp("browser") / "site"
    site.main(["--engine", "pandoc", "--check", "--out", str(out)])
    return out


@pytest.fixture(scope="session")
def chromium():
    with playwright.sync_playwright() as started:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try: browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error: pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def visit(built, chromium):
    "Open a page; whatever it says on the console or asks the network ends the test."
    contexts, wrong = [], []

    def opened(name, width=1400, theme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900 if width > 600 else 844}, color_scheme=theme, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{name}: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
        page.on("request", lambda request: wrong.append(f"{name} asks for {request.url}") if not request.url.startswith(("file:", "data:", "blob:")) else None)
        page.goto(f"file://{built}/{name}")
        return page
    yield opened
    for context in contexts: context.close()
    assert not wrong


def all_pages(built): return sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_overflows_says_an_error_or_asks_the_network(built, visit, width):
    page, found = visit("index.html", width), {}
    for name in all_pages(built):
        page.goto(f"file://{built}/{name}")
        if here := page.evaluate(OVERFLOW): found[name] = here
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith(("rows", "runs/results", "runs/separation-m", "tables/table-1", "tables/table-2", "tables/table-8"))])
def test_designed_tables_are_not_cut_on_a_desk(visit, name):
    for width in (1400, 1280): assert visit(name, width).evaluate(CUT) == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", (1400, 390))
def test_axe_finds_nothing(built, visit, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: pip install 'robustacc[browser]'").Axe()
    page, found = visit("index.html", width, theme), {}                          # axe itself must not fetch the style sheets again: from a folder, a page may not
    for name in KINDS:
        page.goto(f"file://{built}/{name}")
        for fault in axe.run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]:
            found.setdefault(name, []).append(f"{fault['id']} ({len(fault['nodes'])}): {fault['nodes'][0]['target']}")
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("width, height", ((1400, 900), (390, 844)))
def test_the_finding_is_seen_without_scrolling(visit, width, height):
    page = visit("index.html", width)
    for what in (".lead", ".step .figure-number"): assert page.locator(what).first.bounding_box()["y"] < height - 40


def test_pages_keep_their_budget(built):
    def weight(name):
        text = (built / name).read_text()
        named = {name, *re.findall(r'(?:src|href)="([^"#:]+\.(?:js|css|png|svg|webp))"', text)}
        return sum((built / name).parent.joinpath(one).stat().st_size if one != name else len(text.encode()) for one in named)
    assert weight("index.html") < 300_000
    assert weight("findings/explorer.html") < 1_000_000


def shown(page): return page.eval_on_selector_all("#rows tbody tr:not([hidden])", "rows => rows.map(row => [...row.cells].map(cell => cell.dataset.value ?? cell.textContent.trim()))")


def column(page, key): return page.eval_on_selector_all("#rows thead th", "(heads, key) => heads.findIndex(head => head.dataset.key === key)", key)


def test_the_table_sorts_filters_and_keeps_its_view_in_the_address(visit):
    page = visit("findings/explorer.html")
    everything = shown(page)
    page.select_option("select[name=dataset]", "MNIST")
    page.select_option("select[name=source]", "ours")
    where, source, accuracy = (column(page, key) for key in ("dataset", "source", "mt"))
    some = shown(page)
    assert some == [row for row in everything if row[where] == "MNIST" and row[source] == "ours"] and 0 < len(some) < len(everything)
    assert page.locator("#count").inner_text() == f"{len(some)} of {len(everything)} rows"
    for direction in ("ascending", "descending"):
        page.click("#rows th[data-key=mt] button")
        values = [float(row[accuracy]) for row in shown(page) if row[accuracy]]
        assert values == sorted(values, reverse=direction == "descending") and page.get_attribute("#rows th[data-key=mt]", "aria-sort") == direction
    assert page.locator("#scatter circle").count() > 0
    again = visit("findings/explorer.html" + page.evaluate("location.hash"))
    assert shown(again) == shown(page)


def test_the_view_becomes_csv(visit, tmp_path):
    page = visit("findings/explorer.html")
    page.fill("#facets input[name=q]", "trades cifar")
    with page.expect_download() as download: page.click("#csv")
    download.value.save_as(tmp_path / "rows.csv")
    lines = list(csv.reader((tmp_path / "rows.csv").open()))
    assert lines[0] == page.eval_on_selector_all("#rows thead th", "heads => heads.map(head => head.dataset.key)")
    assert lines[1:] == shown(page) and len(lines) > 1


def test_the_table_works_by_keyboard(visit):
    page = visit("findings/explorer.html")
    page.focus("#rows th[data-key=test_acc] button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#rows th[data-key=test_acc]", "aria-sort") == "ascending"
    page.focus("#facets input[name=q]")
    page.keyboard.type("natural")
    assert all("natural" in " ".join(row).lower() for row in shown(page))


@pytest.mark.parametrize("query, title", (("trade-off", "Is there a trade-off?"), ("tradeoff", "Is there a trade-off?"), ("hypothesis", None), ("how robust", "How robust can any classifier be on these images?")))
def test_search_finds(visit, query, title):
    page = visit("index.html")
    page.keyboard.press("/")
    page.keyboard.type(query)
    page.wait_for_selector(".hits a")
    found = page.locator(".hits a").all_inner_texts()
    assert found and (title is None or any(title in text for text in found))
    first = page.locator(".hits a").first.get_attribute("href")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: unquote(url).endswith(f"/{first}"))            # the first hit, not merely some page
    page.wait_for_selector("h1")
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("name", ("index.html", "site_render.html"))
@pytest.mark.parametrize("width", (1400, 390))
def test_the_first_tab_stop_skips_to_the_text(visit, name, width):
    page = visit(name, width)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    if width > 900:                                                              # and the sidebar shows where one is
        box, bar = (page.locator(what).first.bounding_box() for what in (".sidebar [aria-current]", ".sidebar"))
        assert bar["y"] <= box["y"] and box["y"] + box["height"] <= bar["y"] + bar["height"]


def test_escape_closes_the_menu_of_a_phone(visit):
    page = visit("index.html", 390)
    page.click("button.menu")
    assert page.locator(".sidebar").is_visible() and page.get_attribute("button.menu", "aria-expanded") == "true"
    page.keyboard.press("Escape")
    assert not page.locator(".sidebar").is_visible() and page.get_attribute("button.menu", "aria-expanded") == "false"
    assert page.evaluate("document.activeElement.className") == "menu"


def test_the_search_says_how_much_it_found_and_closes_behind_the_focus(visit):
    page = visit("index.html")
    page.keyboard.press("/")
    page.keyboard.type("rhinoceros")
    page.wait_for_selector(".hits .none")
    assert page.locator(".search .said").inner_text() == "Nothing found"
    page.fill(".search input", "separation")
    page.wait_for_selector(".hits a")
    assert page.locator(".search .said").inner_text() == f"{page.locator('.hits a').count()} places found"
    page.focus("button.theme")
    assert page.locator(".hits").is_hidden()


def test_the_theme_is_switched_and_kept(visit):
    page = visit("index.html")
    page.click("button.theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_slider_draws_which_balls_meet_and_says_the_optimum(built, visit):
    page = visit("findings/closest-pairs.html")
    for dataset in page.eval_on_selector_all("#browse select[name=dataset] option", "options => options.map(option => option.value)"):
        place = page.get_attribute(f"section[data-dataset={dataset}] .sheet a", "href")
        record = json.loads((built / "findings" / unquote(place)).read_text())
        levels = [round(255 * pair["distance"]) for pair in record["closest"]["pairs"]]
        page.select_option("#browse select[name=dataset]", dataset)
        for level in (0, min(levels) - 1, min(levels), levels[99]):
            page.locator("#browse input[name=eps]").fill(str(level))
            assert page.locator(f"section[data-dataset={dataset}] li.meet").count() == sum(one <= level for one in levels)
            said = page.locator("#found").inner_text()
            assert f"the balls of {sum(one <= level for one in levels)} of these {len(levels)} pairs meet" in said
            conflicts = built / "records" / "conflicts" / f"{dataset}.json"
            exact = [row for row in json.loads(conflicts.read_text())["metrics"]["curve"] if row["levels"] == level and row["conflicts"]] if conflicts.exists() else []
            for row in exact: assert f"loses at least {row['deterministic']:,} image" in said
        first = record["closest"]["pairs"][0]["labels"]
        both = " and ".join(sorted(record["closest"]["classes"][label] for label in first))
        page.select_option("#browse select[name=classes]", both)
        assert page.locator(f"section[data-dataset={dataset}] li:visible").count() == sum(sorted(pair["labels"]) == sorted(first) for pair in record["closest"]["pairs"])
    again = visit("findings/closest-pairs.html" + page.evaluate("location.hash"))
    assert again.locator("#found").inner_text() == page.locator("#found").inner_text()
    page.locator("#browse input[name=eps]").focus()
    before = page.locator("#found").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#found").inner_text() != before


def test_every_figure_and_table_has_a_number_a_caption_and_words(built, visit):
    page, wrong = visit("index.html"), {}
    for name in set(all_pages(built)) - {"curation_page.html"}:                  # shows a report as a reader gets it, with figures of its own
        page.goto(f"file://{built}/{name}")
        here = page.evaluate("""() => [
          ...[...document.querySelectorAll('article img')].filter(image => (image.alt || '').trim().split(/\\s+/).length < 3).map(image => `alt "${image.alt}"`),
          ...[...document.querySelectorAll('article img')].filter(image => image.alt === 'The figure drawn by the code above').map(() => 'alt says nothing'),
          ...[...document.querySelectorAll('article figure figcaption')].filter(caption => !/^Figure \\d+\\./.test(caption.textContent.trim())).map(caption => `figure "${caption.textContent.slice(0, 50)}"`),
          ...[...document.querySelectorAll('article table')].filter(table => !table.closest('.parameters, .methods') && !/^(Table|Figure) \\d+\\. *\\S/.test((table.caption?.textContent || '').trim())).map(table => `table "${(table.caption || table).textContent.trim().slice(0, 50)}"`)]""")
        here += page.evaluate("""() => {
          const plain = element => { const copy = element.cloneNode(true); copy.querySelectorAll('.label, .made, .anchor').forEach(one => one.remove()); return copy.textContent.trim().replace(/\\.$/, ''); };
          const heads = [...document.querySelectorAll('article :is(h1, h2, h3, h4)')];
          return [...document.querySelectorAll('article :is(caption, figcaption)')].filter(caption => plain(caption) === plain(heads.filter(head => head.compareDocumentPosition(caption) & 4).at(-1)))
            .map(caption => `only its heading: "${plain(caption)}"`);
        }""")
        if here: wrong[name] = here
    assert not wrong, json.dumps(wrong, indent=1)
