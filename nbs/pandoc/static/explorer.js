// The table of all rows: sorting, facets, search, the address, a linked scatter and CSV. The table is complete without this script.
addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("#rows");
  if (!table) return;
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const form = document.querySelector("#facets"), count = document.querySelector("#count"), plot = document.querySelector("#scatter");
  const key = head => head.dataset.key, value = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
  const facets = heads.map((head, at) => [head, at]).filter(([head]) => "facet" in head.dataset);
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1) || location.search));

  for (const [head, at] of facets) {
    const label = document.createElement("label"), select = document.createElement("select");
    label.append(head.dataset.facet, select);
    select.name = key(head);
    const found = [...new Set(rows.map(row => value(row, at)))].sort();
    select.append(new Option("all", ""), ...found.map(v => new Option(v || "not said", v || "-")));
    select.value = state[select.name] || "";
    if (select.selectedIndex < 0) select.value = "";
    form.querySelector(".choices").append(label);
  }
  form.elements.q.value = state.q || "";
  if (["pgd", "mt"].includes(state.attack)) form.elements.attack.value = state.attack;
  form.hidden = false;
  let sort = heads.some(h => key(h) === (state.sort || "").replace("-", "")) ? state.sort : "";

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => { sort = sort === key(head) ? "-" + key(head) : sort === "-" + key(head) ? "" : key(head); show(); });
  }

  function order() {
    for (const head of heads) head.removeAttribute("aria-sort");
    const at = heads.findIndex(h => key(h) === sort.replace("-", ""));
    if (at < 0) return rows;
    const down = sort[0] === "-";
    heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = "number" in heads[at].dataset;
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a, at), value(b, at)];
      if (!x || !y) return !x - !y;                          // what was not measured comes last
      return (down ? -1 : 1) * (number ? x - y : x.localeCompare(y, "en", { numeric: true }));
    });
  }

  function draw(visible) {
    const attack = form.elements.attack.value, column = name => heads.findIndex(h => key(h) === name);
    const points = visible.map(row => ({ row, x: +value(row, column("test_acc")), y: +(value(row, column(attack)) || NaN), gap: Math.abs(+value(row, column("gap"))) || 0,
      paper: row.classList.contains("paper") })).filter(p => p.x && !isNaN(p.y));
    const low = Math.floor(Math.min(95, ...points.map(p => p.x)) / 5) * 5, floor = Math.floor(Math.min(90, ...points.map(p => p.y)) / 10) * 10;
    const X = v => 44 + (v - low) / (100 - low) * 500, Y = v => 250 - (v - floor) / (100 - floor) * 230;
    const ticks = (from, step) => Array.from({ length: Math.floor((100 - from) / step) + 1 }, (_, i) => from + i * step);
    plot.innerHTML = ticks(low, low < 60 ? 20 : low < 90 ? 5 : 1).map(v => `<line class="grid" x1="${X(v)}" x2="${X(v)}" y1="20" y2="250"/><text x="${X(v)}" y="266" text-anchor="middle">${v}</text>`).join("")
      + ticks(floor, floor < 60 ? 20 : 5).map(v => `<line class="grid" x1="44" x2="544" y1="${Y(v)}" y2="${Y(v)}"/><text x="38" y="${Y(v) + 4}" text-anchor="end">${v}</text>`).join("")
      + `<text x="294" y="284" text-anchor="middle">accuracy, %</text><text transform="translate(11 135) rotate(-90)" text-anchor="middle">under ${attack === "mt" ? "MT" : "PGD-10"}, %</text>`;
    for (const p of points) {
      const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      for (const [k, v] of Object.entries({ cx: X(p.x), cy: Y(p.y), r: 3.5 + Math.sqrt(p.gap), class: p.paper ? "paper" : "ours" })) dot.setAttribute(k, v);
      dot.append(document.createElementNS("http://www.w3.org/2000/svg", "title"));
      dot.firstChild.textContent = `${value(p.row, 0)}: ${value(p.row, column("dataset"))}, ${value(p.row, column("row"))}, ${value(p.row, column("profile"))}: ${p.x.toFixed(1)} / ${p.y.toFixed(1)}`;
      dot.addEventListener("click", () => { p.row.scrollIntoView({ block: "center" }); light(p.row); });
      dot.addEventListener("mouseenter", () => light(p.row));
      p.row.onmouseenter = () => { plot.querySelectorAll(".on").forEach(d => d.classList.remove("on")); dot.classList.add("on"); };
      plot.append(dot);
    }
    plot.setAttribute("aria-label", `Accuracy against accuracy under attack for ${points.length} rows that are shown; the size of a dot grows with the gap between training and test. The table below has the same numbers.`);
  }
  const light = row => { table.querySelectorAll("tr.on").forEach(r => r.classList.remove("on")); row.classList.add("on"); };

  let visible = rows;
  function show() {
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    visible = order().filter(row => facets.every(([head, at]) => { const wanted = form.elements[key(head)].value; return !wanted || (value(row, at) || "-") === wanted; })
      && words.every(word => row.textContent.toLowerCase().includes(word)));
    const kept = new Set(visible);
    rows.forEach(row => { row.hidden = !kept.has(row); });
    table.tBodies[0].append(...visible);
    count.textContent = `${visible.length} of ${rows.length} rows`;
    const next = new URLSearchParams([...new FormData(form)].filter(([k, v]) => v && !(k === "attack" && v === "pgd")));
    if (sort) next.set("sort", sort);
    history.replaceState(null, "", location.pathname + "#" + next);
    draw(visible);
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => { sort = ""; setTimeout(show); });
  document.querySelector("#csv").addEventListener("click", () => {
    const quote = text => /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    const lines = [heads.map(key), ...visible.map(row => heads.map((_, at) => value(row, at)))].map(line => line.map(quote).join(","));
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })), download: "rows.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  show();
});
