// Elements, numbers and colours. Every text of a run goes through text nodes: nothing in it is ever read as mark-up.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function known(value) {
  return value !== null && value !== undefined;
}

/** A number for people: three digits that count, no exponent where a short form exists. */
function show(value, digits = 3) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
}

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function seriesColour(number) {
  return colour(`c${number % 8}`);
}

/** About five round numbers from low to high. */
function roundTicks(low, high) {
  const raw = (high - low) / 4 || 1;
  const size = 10 ** Math.floor(Math.log10(raw));
  const unit = size * [1, 2, 2.5, 5, 10].find((m) => m * size >= raw * 0.999);
  const first = Math.ceil(low / unit - 1e-9);
  return Array.from({ length: Math.floor(high / unit + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * unit).toPrecision(12)));
}

/** An interval stays on one line. */
function unbroken(text) {
  return text.replace(/\[([^\],]+), ([^\]]+)\]/g, "[$1,\u00a0$2]");
}

/** A section with its place in the navigation. */
function section(id, title, about, ...children) {
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
  return el("section", { id, "aria-labelledby": `${id}-h` }, el("h2", { id: `${id}-h` }, title), about && el("p", { class: "about" }, about), children);
}

function table(head, rows, numeric = []) {
  const cell = (tag, text, i) => el(tag, { class: numeric.includes(i) ? "num" : null, scope: tag === "th" ? "col" : null }, text);
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table" },
    el("table", {}, el("thead", {}, el("tr", {}, head.map((text, i) => cell("th", text, i)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, i) => cell("td", value, i)))))));
}

// --- light and dark ---------------------------------------------------------------------------------------------------
const redraws = [];

/** Do something now, and again when colours change. */
function drawn(draw) {
  redraws.push(draw);
  draw();
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  redraws.forEach((draw) => draw());
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = prefersDark.matches ? "dark" : "light";
prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () =>
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
