// A value distribution token by token as a fan, and whether the critic's quantiles are where returns are.

/** Quantiles of a token, averaged over heads: what the method takes for the critic's law. */
function ensemble(heads) {
  return heads[0].map((_, level) => heads.reduce((sum, head) => sum + head[level], 0) / heads.length);
}

function mean(values) {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

function fan(sample, onToken) {
  const { values, levels, texts } = sample.tokens;
  const at = values.map((v, i) => (v ? i : null)).filter(known);
  if (!at.length) return null;
  const laws = at.map((i) => ensemble(values[i]));
  const heads = values[at[0]].length;
  const levelsOf = [sample.observed, sample.clean].filter(known);
  const all = laws.flat().concat(levelsOf, at.flatMap((i) => (heads > 1 ? values[i].map(mean) : [])));
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low) * 0.08 || 0.1;
  [low, high] = [low - room, high + room];
  const W = Math.max(280, Math.min(640, innerWidth - 70)), H = 210, LEFT = 40, BOTTOM = 34, TOP = 8;
  const x = (n) => LEFT + (at.length === 1 ? (W - LEFT) / 2 : ((W - LEFT - 14) * n) / (at.length - 1)) + 4;
  const y = (v) => TOP + (H - BOTTOM - TOP) * (1 - (v - low) / (high - low));
  const line = (of) => at.map((_, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${y(of(n)).toFixed(1)}`).join("");
  const parts = [];
  for (let b = 0; b < Math.floor(levels.length / 2); b++) {
    const upper = at.map((_, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${y(laws[n][levels.length - 1 - b]).toFixed(1)}`).join("");
    const lower = at.map((_, n) => at.length - 1 - n).map((n) => `L${x(n).toFixed(1)} ${y(laws[n][b]).toFixed(1)}`).join("");
    parts.push(svg("path", { d: `${upper}${lower}Z`, class: "f0", "fill-opacity": 0.1, stroke: "none" }));
  }
  parts.push(svg("path", { d: line((n) => laws[n][Math.floor(levels.length / 2)]), class: "s0", fill: "none", "stroke-width": 2.2 }));
  if (heads > 1) for (let h = 0; h < heads; h++) parts.push(svg("path", { d: line((n) => mean(values[at[n]][h])), class: "s1", fill: "none", "stroke-width": 1.2, "stroke-dasharray": h ? "2 3" : "5 3" }));
  const level = (v, name, cls) => known(v) && parts.push(svg("line", { x1: LEFT, x2: W, y1: y(v), y2: y(v), class: cls, "stroke-width": 1.2, "stroke-dasharray": "7 4" }), svg("text", { x: W - 4, y: y(v) - 4, "text-anchor": "end" }, name));
  level(sample.observed, sample.observed === sample.clean ? "score, also the true one" : "observed score", "sm");
  if (sample.clean !== sample.observed) level(sample.clean, "true score", "s2");
  const ticks = roundTicks(low, high).map((v) => [svg("line", { x1: LEFT, x2: W, y1: y(v), y2: y(v), class: "sl", "stroke-width": 1 }), svg("text", { x: LEFT - 5, y: y(v) + 4, "text-anchor": "end" }, show(v))]);
  const every = Math.ceil(at.length / Math.floor(W / 28));
  const words = at.map((i, n) => (n % every ? null : svg("text", { x: x(n), y: H - 14, "text-anchor": "middle" }, printable(texts[i]).slice(0, 7))));
  const marker = svg("line", { y1: TOP, y2: H - BOTTOM, class: "sm", "stroke-width": 1, visibility: "hidden" });
  const over = svg("rect", { x: LEFT, y: 0, width: W - LEFT, height: H - BOTTOM, fill: "transparent" });
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": describeFan(sample, laws, heads) }, ticks, parts, words, marker, over);
  over.addEventListener("pointermove", (event) => {
    const box = over.getBoundingClientRect();
    const n = Math.round(((event.clientX - box.left) / box.width) * (at.length - 1));
    onToken(at[Math.min(at.length - 1, Math.max(0, n))]);
  });
  picture.mark = (i) => {
    const n = at.indexOf(i);
    marker.setAttribute("visibility", n < 0 ? "hidden" : "visible");
    if (n >= 0) ["x1", "x2"].forEach((name) => marker.setAttribute(name, x(n)));
  };
  drawnWhileShown(picture);
  return picture;
}

function describeFan(sample, laws, heads) {
  const last = laws.length - 1, middle = Math.floor(laws[0].length / 2);
  const at = (n) => `${show(laws[n][middle])}, from ${show(laws[n][0])} to ${show(laws[n][laws[n].length - 1])}`;
  return `The critic's value before each token: median ${at(0)} at the first, ${at(last)} at the last. ${heads} heads. Observed score ${show(sample.observed)}.`;
}

/** Colours of a picture by class: s for strokes, f for fills, of series 0 to 7; l line, m muted. */
function paint(picture) {
  const names = { m: colour("muted"), l: colour("line") };
  for (let i = 0; i < 8; i++) names[i] = seriesColour(i);
  for (const [name, value] of Object.entries(names)) {
    picture.querySelectorAll(`.s${name}`).forEach((node) => node.setAttribute("stroke", value));
    picture.querySelectorAll(`.f${name}`).forEach((node) => node.setAttribute("fill", value));
  }
}

/** Pictures that come and go are painted when made, and again on a change of colours as long as they are there. */
const shownPictures = new Set();
function drawnWhileShown(picture) {
  paint(picture);
  shownPictures.add(picture);
}
redraws.push(() => shownPictures.forEach((picture) => (picture.isConnected ? paint(picture) : shownPictures.delete(picture))));

const COVERAGE = [[0.05, "q05"], [0.25, "q25"], [0.5, "q50"], [0.75, "q75"], [0.95, "q95"]];

/** Share of returns below each predicted quantile, over the last fifth of the run: on the diagonal if calibrated. */
function calibrationFigure() {
  const W = 350, H = 240, LEFT = 40, BOTTOM = 38, TOP = 8;
  const x = (v) => LEFT + (W - LEFT - 12) * v, y = (v) => TOP + (H - BOTTOM - TOP) * (1 - v);
  const lines = DATA.groups.map((group, g) => {
    const points = COVERAGE.map(([level, name]) => {
      const curve = groupCurves(group)[`critic/coverage_${name}`];
      const late = curve && curve.values.slice(-Math.max(3, Math.ceil(curve.values.length / 5))).filter(known);
      return late && late.length ? [level, mean(late)] : null;
    }).filter(Boolean);
    return points.length > 1 ? { g, label: group.label, points } : null;
  }).filter(Boolean);
  if (!lines.length) return null;
  const grid = [0, 0.25, 0.5, 0.75, 1].map((v) => [svg("line", { x1: x(0), x2: x(1), y1: y(v), y2: y(v), class: "sl" }), svg("text", { x: LEFT - 5, y: y(v) + 4, "text-anchor": "end" }, show(v)), svg("text", { x: x(v), y: H - 22, "text-anchor": "middle" }, show(v))]);
  const drawnLines = lines.map(({ g, points }) => [svg("path", { d: points.map(([a, b], i) => `${i ? "L" : "M"}${x(a)} ${y(b)}`).join(""), class: `s${g % 8}`, fill: "none", "stroke-width": 2 }), points.map(([a, b]) => svg("circle", { cx: x(a), cy: y(b), r: 3.2, class: `f${g % 8}` }, svg("title", {}, `${show(b)} of returns lie below the predicted ${a} quantile`)))]);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Calibration: " + lines.map(({ label, points }) => `${label}: ` + points.map(([a, b]) => `${show(b)} below the ${a} quantile`).join(", ")).join(". ") },
    grid, svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "sm", "stroke-dasharray": "5 4" }), drawnLines, svg("text", { x: x(0.5), y: H - 5, "text-anchor": "middle" }, "level of the predicted quantile"));
  drawnWhileShown(picture);
  const legend = el("ul", { class: "legend" }, lines.map(({ g, label }) => el("li", {}, swatch(g, 0), label)));
  return el("figure", {}, el("figcaption", {}, "Calibration at the end (PIT)", el("small", {}, "Share of returns below each predicted quantile. On the dashed line: calibrated. Below it at the left, above it at the right: too wide.")), el("div", { class: "svgbox" }, picture), legend);
}
