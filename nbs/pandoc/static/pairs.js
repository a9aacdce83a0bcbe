// The closest pairs: data set, classes, and a radius whose balls are drawn. Without this script the page lists all pairs.
addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("#browse"), found = document.querySelector("#found");
  if (!form) return;
  const sections = [...document.querySelectorAll("section.pairs")], { dataset, classes, eps } = form.elements;
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const many = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

  // What the sample allows when balls of two radii of `level` grey levels meet, from the measured radii around it.
  function optimum(section, level) {
    const curve = JSON.parse(section.dataset.curve || "[]"), below = curve.filter(row => row[0] <= level).pop(), above = curve.find(row => row[0] >= level);
    if (!curve.length) return "The optimum was not computed for this data set.";
    if (!below || (above && !above[1])) return "No balls of different classes meet, so every training image can be classified robustly.";
    const share = row => `${many(row[2], "image")} if it is deterministic, ${(100 * row[3]).toFixed(3)}% if it may be random`;
    if (above && above[0] === below[0]) return `${many(below[1], "pair")} of all training images meet. Every classifier loses at least ${share(below)}.`;
    return `At the largest measured radius below, ${(below[0] / 510).toFixed(4)}, ${many(below[1], "pair")} of all training images meet, and every classifier loses at least ${share(below)}; at this radius it is no less${above ? `, and at ${(above[0] / 510).toFixed(4)} the optimum loses ${share(above)}` : ""}.`;
  }

  function choose() {
    const section = sections.find(s => s.dataset.dataset === dataset.value), items = [...section.querySelectorAll("li")], counts = {};
    for (const item of items) counts[item.dataset.classes] = (counts[item.dataset.classes] || 0) + 1;
    classes.replaceChildren(new Option(`all (${items.length})`, ""), ...Object.keys(counts).sort().map(name => new Option(`${name} (${counts[name]})`, name)));
    eps.max = Math.max(...items.map(item => +item.dataset.level)) + 10;
    eps.value = Math.round(510 * section.dataset.eps);
    sections.forEach(s => { s.hidden = s !== section; });
  }

  function show() {
    const section = sections.find(s => s.dataset.dataset === dataset.value), level = +eps.value;
    const shown = [...section.querySelectorAll("li")].filter(item => { item.hidden = classes.value && item.dataset.classes !== classes.value; return !item.hidden; });
    section.style.setProperty("--twice", level);
    for (const item of shown) item.classList.toggle("meet", +item.dataset.level <= level);
    const meeting = shown.filter(item => +item.dataset.level <= level).length, radius = (level / 510).toFixed(4), times = level / 510 / section.dataset.eps;
    eps.setAttribute("aria-valuetext", radius);
    found.textContent = `Radius ${radius}, ${times.toFixed(2)} times the paper's ${section.dataset.eps}: the balls of ${meeting} of these ${many(shown.length, "pair")} meet. ${optimum(section, level)}`;
    history.replaceState(null, "", location.pathname + "#" + new URLSearchParams(new FormData(form)));
  }
  for (const item of document.querySelectorAll(".pairs li")) item.style.setProperty("--level", item.dataset.level);
  form.hidden = false;
  if (sections.some(s => s.dataset.dataset === state.dataset)) dataset.value = state.dataset;
  choose();
  if ([...classes.options].some(option => option.value === state.classes)) classes.value = state.classes;
  if (/^\d+$/.test(state.eps || "")) eps.value = state.eps;
  dataset.addEventListener("change", choose);
  form.addEventListener("input", event => { if (event.target === dataset) choose(); show(); });
  form.addEventListener("submit", event => event.preventDefault());
  show();
});
