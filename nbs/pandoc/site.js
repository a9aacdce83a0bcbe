// Theme, menu, the mark in the table of contents, and a search that needs no server.
(() => {
  const html = document.documentElement;
  const root = html.dataset.root || "";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                   set: value => { try { localStorage.setItem("theme", value); } catch { /* file:// may refuse */ } } };
  const paint = () => { html.dataset.theme = stored.get() || (dark.matches ? "dark" : "light"); };
  paint();                                                    // before the first paint: this script is in the head
  dark.addEventListener("change", paint);

  const joined = text => text.replace(/(\p{L})[-\u2010-\u2013](?=\p{L})/gu, "$1");     // trade-off and tradeoff are one word
  const words = text => joined(text.toLowerCase().normalize("NFKD")).match(/[\p{L}\p{N}_]+/gu) || [];
  const escape = text => text.replace(/[&<>"]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }[c]));

  // [address, page title, heading, text]: every word of the query must begin a word of the entry.
  function score(entry, query) {
    let total = 0;
    entry = [entry[0], ...entry.slice(1).map(joined)];
    for (const word of query) {
      const start = new RegExp("(^|[^\\p{L}\\p{N}])" + word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "iu");
      const exact = (entry[2] || entry[1]).toLowerCase() === word ? 40 : 0;
      const here = exact + (start.test(entry[2]) ? 12 : 0) + (start.test(entry[1]) ? 6 : 0) + (start.test(entry[3]) ? 2 : 0);
      if (!here) return 0;
      total += here;
    }
    return total + (/^runs\//.test(entry[0]) ? 0 : 4);
  }

  function excerpt(text, query) {
    const at = text.toLowerCase().search(new RegExp(query.map(w => w.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "i"));
    const from = Math.max(0, at - 50);
    let cut = (from ? "… " : "") + text.slice(from, from + 150) + (text.length > from + 150 ? " …" : "");
    cut = escape(cut);
    for (const word of query) cut = cut.replace(new RegExp("(" + word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") + ")", "ig"), "<mark>$1</mark>");
    return cut;
  }

  function load(then) {
    if (window.searchIndex) return then();
    const script = document.createElement("script");
    script.src = root + "search.js";
    script.onload = then;
    document.head.append(script);
  }

  addEventListener("DOMContentLoaded", () => {
    const body = document.body, menu = document.querySelector(".menu");
    document.querySelector(".theme").addEventListener("click", () => {
      stored.set(html.dataset.theme === "dark" ? "light" : "dark");
      html.dataset.theme = html.dataset.theme === "dark" ? "light" : "dark";
    });
    menu.addEventListener("click", () => menu.setAttribute("aria-expanded", body.classList.toggle("open")));
    addEventListener("keydown", event => { if (event.key === "Escape" && body.classList.contains("open")) { menu.click(); menu.focus(); } });

    for (const heading of document.querySelectorAll("article :is(h2, h3, h4)[id]")) {
      const anchor = Object.assign(document.createElement("a"), { className: "anchor", href: "#" + heading.id, textContent: "#" });
      anchor.setAttribute("aria-label", "Link to this section");
      heading.append(anchor);
    }

    for (const block of document.querySelectorAll("article pre")) {
      if (block.closest(".signature, .cell-output")) continue;
      const copy = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
      copy.addEventListener("click", () => { navigator.clipboard?.writeText(block.textContent); copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1200); });
      const frame = document.createElement("div");
      frame.className = "copied";
      block.replaceWith(frame);
      frame.append(block, copy);
    }
    for (const frame of document.querySelectorAll("article :is(.table-frame, .cell-output, .cell-output > div, pre, .equation, :is(p, li):has(> math))"))
      if (frame.scrollWidth > frame.clientWidth + 1) { frame.tabIndex = 0; frame.classList.add("over"); }      // scrolls by keyboard too

    const current = document.querySelector(".sidebar [aria-current]");
    if (current && innerWidth > 900) {                        // scrollIntoView would move the first Tab stop behind the link that skips to the text
      const bar = current.closest(".sidebar");
      bar.scrollTop = current.offsetTop + current.offsetHeight + 30 - bar.clientHeight;
    }
    const marks = new Map([...document.querySelectorAll(".contents a")].map(a => [a.getAttribute("href").slice(1), a]));
    const headings = [...document.querySelectorAll("article :is(h2, h3)[id]")].filter(h => marks.has(h.id));
    const follow = () => {
      const above = headings.filter(h => h.getBoundingClientRect().top < 120);
      marks.forEach(a => a.classList.remove("here"));
      const last = above[above.length - 1];
      if (last) marks.get(last.id).classList.add("here");
    };
    addEventListener("scroll", follow, { passive: true });
    follow();

    const input = document.querySelector(".search input"), hits = document.querySelector(".hits"), said = document.querySelector(".search .said");
    let on = -1;
    const show = () => {
      const query = words(input.value);
      hits.hidden = !query.length;
      on = -1;
      if (!query.length || !window.searchIndex) return;
      const found = window.searchIndex.map(entry => [score(entry, query), entry]).filter(pair => pair[0] > 0)
        .sort((a, b) => b[0] - a[0]).slice(0, 12);
      hits.innerHTML = found.map(([, [url, page, heading, text]]) =>
        `<li><a href="${root}${escape(url)}"><b>${escape(heading || page)}</b>${heading ? " · " + escape(page) : ""}<small>${excerpt(text, query)}</small></a></li>`
      ).join("") || '<li class="none">Nothing found.</li>';
      said.textContent = found.length ? `${found.length} place${found.length === 1 ? "" : "s"} found` : "Nothing found";
    };
    input.addEventListener("focus", () => load(show));
    input.addEventListener("input", () => load(show));
    input.addEventListener("keydown", event => {
      const links = [...hits.querySelectorAll("a")];
      if (event.key === "Escape") { input.value = ""; show(); input.blur(); }
      if (event.key === "Enter" && links.length) links[Math.max(on, 0)].click();
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        on = (on + (event.key === "ArrowDown" ? 1 : -1) + links.length) % Math.max(links.length, 1);
        links.forEach((a, i) => a.classList.toggle("on", i === on));
        if (links[on]) { links[on].scrollIntoView({ block: "nearest" }); said.textContent = links[on].textContent; }
      }
    });
    document.querySelector(".search").addEventListener("focusout", event => { if (event.relatedTarget && !event.currentTarget.contains(event.relatedTarget)) hits.hidden = true; });
    addEventListener("keydown", event => {
      if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) { event.preventDefault(); input.focus(); }
    });
    addEventListener("click", event => { if (!event.target.closest(".search")) hits.hidden = true; });
    hits.addEventListener("click", () => { hits.hidden = true; });
  });
})();
