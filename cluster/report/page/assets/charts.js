// Learning curves: one line a group of seeds, raw and smoothed, with intervals where there are some.

const MARKS = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
let smoothing = 0.6;
const charts = [];

/** Curves of a group by metric: {steps, values, low, high, seeds}. */
function groupCurves(group) {
  if (group.made) return group.made;
  const made = {};
  if (group.members.length > 1) {
    for (const [key, [axis, values, low, high]] of Object.entries(group.curves)) made[key] = { steps: DATA.axes[axis], values, low, high, seeds: true };
  } else {
    const own = DATA.runs[group.members[0]].curves;
    for (const [key, [axis, values]] of Object.entries(own)) {
      const [low, high] = [own[`${key}_low`], own[`${key}_high`]];
      const fits = low && high && low[0] === axis && high[0] === axis;
      made[key] = { steps: DATA.axes[axis], values, low: fits ? low[1] : null, high: fits ? high[1] : null };
    }
  }
  return (group.made = made);
}

/** Exponential mean that starts without bias; what is missing stays missing. */
function smooth(values, weight) {
  let mean = 0, share = 0;
  return values.map((value) => {
    if (!known(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

function swatch(colourNumber, mark) {
  const line = svg("line", { x1: 1, y1: 5, x2: 21, y2: 5, "stroke-width": 2.5, "stroke-dasharray": MARKS[mark % 4].join(" ") });
  drawn(() => line.setAttribute("stroke", seriesColour(colourNumber)));
  return svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, line);
}

/** Lines of a chart: one of each metric and group. Colour tells groups apart, or metrics where there is one group. */
function linesOf(spec) {
  const lines = [];
  DATA.groups.forEach((group, g) => spec.keys.forEach(([key, label], k) => {
    const curve = groupCurves(group)[key];
    if (!curve || !curve.values.some(known) || (spec.unlessZero && !curve.values.some(Boolean))) return;
    const many = DATA.groups.length > 1;
    const name = many ? (spec.keys.length > 1 ? `${group.label}, ${label}` : group.label) : label;
    lines.push({ name, curve, colour: many ? g : k, mark: many ? k : 0 });
  }));
  return lines;
}

function chart(spec) {
  const lines = linesOf(spec);
  if (!lines.length) return null;
  const figure = el("figure", {});
  const place = el("div", { class: "plot", tabindex: 0, role: "img", "aria-label": describe(spec.title, lines) });
  const legend = el("ul", { class: "legend" }, lines.map((line) => {
    line.out = el("output", {}, show(lastOf(line.curve.values)));
    return el("li", {}, swatch(line.colour, line.mark), line.name, " ", line.out);
  }), el("li", { class: "at" }));
  const numbers = el("details", { class: "quiet" }, el("summary", {}, "As numbers"));
  numbers.addEventListener("toggle", () => { if (numbers.open && numbers.childElementCount === 1) numbers.append(numberTable(lines)); });
  figure.append(el("figcaption", {}, spec.title, spec.about && el("small", {}, spec.about)), place, legend, numbers);
  const made = { spec, lines, place, legend, plot: null };
  charts.push(made);
  place.addEventListener("keydown", (event) => step(made, event));
  return figure;
}

function lastOf(values) {
  for (let i = values.length - 1; i >= 0; i--) if (known(values[i])) return values[i];
  return null;
}

function describe(title, lines) {
  return `${title}. ` + lines.map(({ name, curve }) => {
    const values = curve.values.filter(known);
    return `${name}: ${show(values[0])} at the start, ${show(lastOf(values))} at the end, between ${show(Math.min(...values))} and ${show(Math.max(...values))}`;
  }).join(". ") + ". Left and right arrow keys read single steps.";
}

function numberTable(lines) {
  const steps = [...new Set(lines.flatMap((line) => line.curve.steps))].sort((a, b) => a - b);
  const every = Math.ceil(steps.length / 12);
  const shown = steps.filter((_, i) => i % every === 0 || i === steps.length - 1);
  const at = (line, s) => { const i = line.curve.steps.indexOf(s); return i < 0 ? "" : show(line.curve.values[i]); };
  return table(["step", ...lines.map((line) => line.name)], shown.map((s) => [String(s), ...lines.map((line) => at(line, s))]), lines.map((_, i) => i + 1).concat(0));
}

function drawChart(made) {
  const { spec, lines, place } = made;
  if (made.plot) made.plot.destroy();
  const steps = [...new Set(lines.flatMap((line) => line.curve.steps))].sort((a, b) => a - b);
  const spread = (curve, values) => {
    const at = new Map(curve.steps.map((s, i) => [s, values[i]]));
    return steps.map((s) => (at.has(s) ? at.get(s) : undefined)); // undefined: no point of this line, so that it goes on
  };
  const [data, series, bands] = [[steps], [{}], []];
  made.shown = [];
  for (const line of lines) {
    const few = line.curve.values.length <= 15;
    const stroke = seriesColour(line.colour);
    const own = few || smoothing === 0;
    if (line.curve.low && line.curve.high) {
      const first = series.length;
      data.push(spread(line.curve, own ? line.curve.high : smooth(line.curve.high, smoothing)), spread(line.curve, own ? line.curve.low : smooth(line.curve.low, smoothing)));
      series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
      bands.push({ series: [first, first + 1], fill: stroke + (DATA.groups.length > 3 ? "18" : "26") });
    } else if (!own) {
      data.push(spread(line.curve, line.curve.values));
      series.push({ stroke: stroke + "55", width: 1, points: { show: false } });
    }
    made.shown.push(series.length);
    data.push(spread(line.curve, own ? line.curve.values : smooth(line.curve.values, smoothing)));
    series.push({ stroke, width: 2, dash: MARKS[line.mark % 4], points: { show: few, size: 5, fill: stroke } });
  }
  for (const level of spec.levels || []) {
    data.push(steps.map(() => level));
    series.push({ stroke: colour("muted") + "88", width: 1, dash: [2, 4], points: { show: false } });
  }
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  made.plot = new uPlot({
    width: Math.max(220, place.clientWidth), height: 190, legend: { show: false }, padding: [8, 8, 0, 0],
    scales: { x: { time: false }, y: { range: (plot) => yRange(plot, made.shown) } },
    axes: [{ ...axis, size: 26, gap: 2, space: 60 }, { ...axis, size: 48, gap: 3, values: (_, ticks) => ticks.map((t) => show(t)) }],
    series, bands, cursor: { sync: { key: "steps" }, points: { size: 6 }, y: false, drag: { x: true, y: false } },
    hooks: { setCursor: [(plot) => readOut(made, plot)] },
  }, data, place);
  made.plot.over.style.cursor = "crosshair";
}

/** Room for the lines, and for their bands as far as those do not make the lines flat; a flat line gets an axis too. */
function yRange(plot, shown) {
  const [from, to] = [plot.scales.x.min ?? -Infinity, plot.scales.x.max ?? Infinity];
  const inside = (column) => column.filter((v, i) => known(v) && plot.data[0][i] >= from && plot.data[0][i] <= to);
  const values = shown.flatMap((n) => inside(plot.data[n]));
  if (!values.length) return [0, 1];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const reach = 0.6 * (high - low);
  const others = plot.data.slice(1).flatMap(inside);
  [low, high] = [Math.max(low - reach, Math.min(...others)), Math.min(high + reach, Math.max(...others))];
  const room = (high - low) * 0.07 || Math.abs(high) * 0.1 || 0.1;
  return [low - (low >= 0 && low - room < 0 ? low : room), high + room];
}

function readOut(made, plot) {
  const i = plot.cursor.idx;
  made.lines.forEach((line, n) => {
    const value = known(i) ? plot.data[made.shown[n]][i] : lastOf(line.curve.values);
    line.out.textContent = known(value) ? show(value) : "–";
  });
  made.legend.lastChild.textContent = known(i) ? `at step ${plot.data[0][i]}` : "";
}

function step(made, event) {
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!move || !made.plot) return;
  event.preventDefault();
  const steps = made.plot.data[0];
  const from = made.plot.cursor.idx;
  const i = Math.min(steps.length - 1, Math.max(0, known(from) ? from + move : move > 0 ? 0 : steps.length - 1));
  made.plot.setCursor({ left: made.plot.valToPos(steps[i], "x"), top: 10 });
}

function drawCharts() {
  charts.forEach(drawChart);
}

/** With several groups, a chart for each metric: lines of groups and of metrics at once cannot be told apart. */
function chartsOf(spec) {
  if (DATA.groups.length < 2 || spec.keys.length < 2) return [chart(spec)];
  return spec.keys.map((key, i) => chart({ ...spec, title: `${spec.title}: ${key[1]}`, about: i ? null : spec.about, keys: [key], levels: spec.levels && spec.levels.length === spec.keys.length ? [spec.levels[i]] : spec.levels }));
}

function chartSection(id, title, about, specs) {
  const figures = specs.flatMap(chartsOf).filter(Boolean);
  return figures.length ? section(id, title, about, el("div", { class: figures.length < 3 ? "charts wide" : "charts" }, figures)) : null;
}
