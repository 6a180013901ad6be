(() => {
"use strict";

const page = JSON.parse(document.getElementById("page-data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

// --- variants ---------------------------------------------------------------------------------

const boxes = all('input[name="variant"]');
const printed = (name) => name.replaceAll("_", "-");

function isShown(variant) {
  // a variant trained otherwise, e.g. "flow + salt", goes with its variant
  const known = boxes.find(({value}) => variant === value || variant.startsWith(`${value} `));
  return !known || known.checked;
}

// --- charts -----------------------------------------------------------------------------------

const rowsOf = {};
for (const [name, {columns, words, rows}] of Object.entries(page.datasets)) {
  const read = (column, value) => (column in words && value != null ? words[column][value] : value);
  rowsOf[name] = rows.map((row) => Object.fromEntries(columns.map((c, i) => [c, read(c, row[i])])));
}

const charts = all("figure.charted").map((figure) => ({
  figure,
  place: figure.querySelector(".chart"),
  specification: JSON.parse(figure.querySelector("script").textContent),
  chosen: {},
  drawn: null,
  wanted: 0,
}));

function namesOfData(node, found = new Set()) {
  if (node && typeof node === "object") {
    if (node.data?.name) found.add(node.data.name);
    Object.values(node).forEach((value) => namesOfData(value, found));
  }
  return found;
}

function keeps(chart, row) {
  if (typeof row.variant === "string" && !isShown(row.variant)) return false;
  return Object.entries(chart.chosen).every(
    ([column, value]) => value === "" || !(column in row) || String(row[column]) === value,
  );
}

/** The chart's specification with the data chosen, in the colours of the scheme. */
function specificationOf(chart, dark) {
  const adapt = (node, key) => {
    if (typeof node === "string") return (dark && page.onDark[node.toLowerCase()]) || node;
    if (Array.isArray(node)) return node.map((value) => adapt(value, key));
    if (!node || typeof node !== "object") return node;
    const copy = Object.fromEntries(Object.entries(node).map(([k, v]) => [k, adapt(v, k)]));
    return repeatsLegend(copy, key) && !printing ? {...copy, legend: null} : copy;
  };
  const datasets = {};
  for (const name of chart.data) datasets[name] = rowsOf[name].filter((row) => keeps(chart, row));
  return {...adapt(chart.specification), datasets};
}

/** Whether an encoding's legend says no more than the variants above the charts. */
function repeatsLegend(node, key) {
  const isMark = ["color", "fill", "stroke"].includes(key) && node.field === "variant";
  return isMark && (node.scale?.domain ?? []).every((name) => page.variants.includes(name));
}

function merged(one, other) {
  const both = {...one};
  for (const [key, value] of Object.entries(other)) {
    const isDeep = value && typeof value === "object" && typeof both[key] === "object";
    both[key] = isDeep ? merged(both[key], value) : value;
  }
  return both;
}

async function draw(chart) {
  const turn = ++chart.wanted;
  const dark = darkScheme.matches && !printing;
  const target = document.createElement("div");
  const result = await vegaEmbed(target, {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    ...specificationOf(chart, dark),
  }, {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    defaultStyle: false,
    logLevel: 1,  // errors
    config: merged(page.config, page.themes[dark ? "dark" : "light"]),
    tooltip: {theme: dark ? "dark" : "light"},
  });
  if (turn !== chart.wanted) return result.finalize();
  chart.drawn?.finalize();
  chart.drawn = result;
  chart.place.replaceChildren(target);
  const svg = target.querySelector("svg");
  svg.setAttribute("aria-hidden", "true");
  // shrinks to the column, but not to where its text can no longer be read
  const width = svg.viewBox.baseVal.width;
  svg.style.minWidth = `${Math.min(width, Math.max(340, 0.62 * width))}px`;
}

const inView = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    draw(charts.find(({place}) => place === target));
  }
}, {rootMargin: "600px 0px"});

/** Draws again what can be seen; the rest when it is scrolled to. */
function redraw(some = charts) {
  for (const {place} of some) {
    inView.unobserve(place);
    inView.observe(place);
  }
}

/** Draws every chart; resolves when all are drawn. */
window.drawAll = () => {
  charts.forEach(({place}) => inView.unobserve(place));
  return Promise.all(charts.map(draw));
};

function offerChoices(chart) {
  const choices = chart.figure.querySelector(".choices");
  for (const column of chart.figure.dataset.filters.split(" ").filter(Boolean)) {
    const rows = [...chart.data].flatMap((name) => rowsOf[name]);
    const values = [...new Set(rows.map((row) => row[column]))].filter((v) => v != null);
    if (values.length < 2) continue;
    const select = document.createElement("select");
    select.dataset.column = column;
    select.append(new Option("all", ""), ...values.map((v) => new Option(v, v)));
    select.addEventListener("change", () => {
      chart.chosen[column] = select.value;
      redraw([chart]);
    });
    const label = document.createElement("label");
    label.append(`${column.replaceAll("_", " ").replace(/\bkl\b/, "KL")} `, select);
    choices.append(label);
  }
}

for (const chart of charts) {
  chart.data = namesOfData(chart.specification);
  offerChoices(chart);
}

// --- tables -----------------------------------------------------------------------------------

const NOTHING = ["", "–", "n/a"];

function compare(a, b, direction) {
  const [x, y] = [a, b].map((cell) => cell.textContent.trim());
  const [noX, noY] = [x, y].map((text) => NOTHING.includes(text));
  if (noX || noY) return noX - noY;
  const [p, q] = [a, b].map((cell) =>
    Number(cell.dataset.value ?? cell.textContent.replace("−", "-").replaceAll(",", "")));
  if (!Number.isNaN(p) && !Number.isNaN(q)) return direction * (p - q);
  return direction * x.localeCompare(y, "en", {numeric: true});
}

function sort(heading) {
  const table = heading.closest("table");
  const order = {none: "ascending", ascending: "descending", descending: "none"};
  const next = order[heading.getAttribute("aria-sort") ?? "none"];
  all("th", table).forEach((th) => th.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", next);
  const body = table.tBodies[0];
  const place = heading.cellIndex;
  const direction = next === "descending" ? -1 : 1;
  const lines = [...body.rows].sort((a, b) =>
    (next !== "none" && compare(a.cells[place], b.cells[place], direction)) ||
    a.dataset.place - b.dataset.place);
  body.append(...lines);
}

function filter(details) {
  const find = details.querySelector(".find");  // a short table has none
  const words = (find?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const lines = all("tbody tr", details);
  for (const line of lines) {
    const text = line.textContent.toLowerCase();
    const {variant} = line.dataset;
    line.hidden = !words.every((word) => text.includes(word)) ||
      (variant !== undefined && !isShown(printed(variant)));
  }
  const shown = lines.filter((line) => !line.hidden).length;
  if (find) details.querySelector(".count").textContent = shown < lines.length ? `${shown} of ${lines.length} lines` : "";
}

const tables = all("details.table");
for (const details of tables) {
  all("tbody tr", details).forEach((line, place) => { line.dataset.place = place; });
  details.querySelector(".find")?.addEventListener("input", () => filter(details));
  details.addEventListener("click", ({target}) => {
    if (target.closest("th button")) sort(target.closest("th"));
  });
}

// --- what is shown ----------------------------------------------------------------------------

const articles = all("article.dataset");
const chooser = document.getElementById("dataset");

function choose(key) {
  chooser.value = key;
  for (const article of articles) article.hidden = key !== "" && article.id !== key;
}

/** The question that is being read. */
function questionInView() {
  const sections = all("article.dataset:not([hidden]) section.finding");
  return sections.filter((s) => s.getBoundingClientRect().top < 200).at(-1)?.dataset.question;
}

chooser.addEventListener("change", () => {
  const question = questionInView();
  choose(chooser.value);
  const article = document.getElementById(chooser.value || articles[0].id);
  const same = question && article.querySelector(`[data-question="${question}"]`);
  history.replaceState(null, "", `#${(same || article).id}`);
  (same || document.getElementById("results")).scrollIntoView();
});

function follow() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const article = target?.closest("article.dataset");
  if (!article) return;
  if (article.hidden) choose(article.id);
  for (let at = target; at; at = at.parentElement?.closest("details")) at.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", follow);

const everyVariant = document.getElementById("every-variant");
function variantsChanged() {
  everyVariant.hidden = boxes.every((box) => box.checked);
  tables.forEach(filter);
  redraw(charts.filter((chart) =>
    [...chart.data].some((name) => page.datasets[name].columns.includes("variant"))));
}
boxes.forEach((box) => box.addEventListener("change", variantsChanged));
everyVariant.addEventListener("click", () => {
  boxes.forEach((box) => { box.checked = true; });
  variantsChanged();
  boxes[0].focus({preventScroll: true});
});
document.querySelector("form.bar").addEventListener("submit", (event) => event.preventDefault());
darkScheme.addEventListener("change", () => redraw());

// --- scrolling parts, printing ----------------------------------------------------------------

const sizes = new ResizeObserver((entries) => {
  for (const {target} of entries) {
    const place = target.closest(".scroll");
    place.toggleAttribute("tabindex", place.scrollWidth > place.clientWidth + 1);
    if (place.hasAttribute("tabindex")) place.tabIndex = 0;
  }
});
for (const place of all(".scroll")) {
  sizes.observe(place);
  if (place.firstElementChild) sizes.observe(place.firstElementChild);
}

let closed = [];
addEventListener("beforeprint", () => {
  printing = true;
  closed = all("details:not([open])");
  closed.forEach((details) => { details.open = true; });
  charts.filter(({figure}) => !figure.closest("[hidden]")).forEach(draw);
});
addEventListener("afterprint", () => {
  printing = false;
  closed.forEach((details) => { details.open = false; });
  redraw();
});

choose(articles[0]?.id ?? "");
follow();
redraw();
})();
