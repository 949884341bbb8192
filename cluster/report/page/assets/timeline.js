// When the learner did what, and what happened beside it.

const PHASE_NAMES = { wait: "waits for responses", old: "runs the models before the update", estimate: "estimates advantages", policy: "trains the policy", critic: "trains the critic", sync: "weights to the engines", eval: "evaluates", other: "the rest: records, commits" };
const PHASE_COLOURS = { wait: 7, old: 6, estimate: 4, policy: 0, critic: 3, sync: 2, eval: 5, other: null };

function timelineFigure(run) {
  const line = run.timeline;
  const W = 1000, LANE = 34, TOP = 8, LEFT = 74;
  const lastBar = line.bars[line.bars.length - 1];
  const end = lastBar[1] + lastBar[2].reduce((a, b) => a + b, 0) || 1;
  const x = (t) => LEFT + (W - LEFT - 8) * Math.min(1, Math.max(0, t / end));
  const totals = line.phases.map((_, p) => line.bars.reduce((sum, bar) => sum + bar[2][p], 0));
  const all = totals.reduce((a, b) => a + b, 0) || 1;
  const rects = [];
  for (const [step, begin, seconds, generate] of line.bars) {
    let at = begin;
    seconds.forEach((s, p) => {
      const name = line.phases[p];
      if (s > 0) rects.push(svg("rect", { x: x(at).toFixed(1), y: TOP, width: Math.max(0.4, x(at + s) - x(at) - 0.15).toFixed(2), height: LANE, class: `ph-${name}` },
        svg("title", {}, `step ${step}: ${PHASE_NAMES[name]}, ${show(s)} s`)));
      at += s;
    });
    if (known(generate)) rects.push(svg("rect", { x: x(begin).toFixed(1), y: TOP + LANE + 8, width: Math.max(0.4, x(at) - x(begin)).toFixed(2), height: 16, class: "ph-gen", "fill-opacity": (0.08 + 0.8 * generate).toFixed(2) },
      svg("title", {}, `step ${step}: generation ran ${Math.round(100 * generate)} % of the time`)));
  }
  const lane = TOP + LANE + 32;
  const marks = run.events.filter(([t]) => known(t) && t >= 0 && t <= end).map(([t, step, kind, level, text]) =>
    svg("path", { d: `M${x(t).toFixed(1)} ${lane} l4.5 9 h-9 z`, class: `ev ev-${level}` }, svg("title", {}, `${clock(t)}, step ${step}, ${kind}: ${text}`)));
  const ticks = Array.from({ length: 6 }, (_, i) => (end * i) / 5).map((t, i) => svg("text", { x: x(t), y: lane + 27, "text-anchor": ["start", "middle", "middle", "middle", "middle", "end"][i] }, clock(t)));
  const names = [["learner", TOP + 21], ["generation", TOP + LANE + 20], ["events", lane + 9]].map(([text, y]) => svg("text", { x: 0, y }, text));
  const picture = svg("svg", { viewBox: `0 0 ${W} ${lane + 34}`, role: "img", "aria-label": `Phases of ${run.name}: ` + line.phases.map((name, p) => `${PHASE_NAMES[name]} ${Math.round((100 * totals[p]) / all)} %`).join(", ") }, names, rects, marks, ticks);
  drawn(() => {
    for (const [name, number] of Object.entries(PHASE_COLOURS)) picture.querySelectorAll(`.ph-${name}`).forEach((r) => r.setAttribute("fill", number === null ? colour("line") : seriesColour(number)));
    picture.querySelectorAll(".ph-gen").forEach((r) => r.setAttribute("fill", seriesColour(1)));
    picture.querySelectorAll(".ev").forEach((m) => m.setAttribute("fill", m.classList.contains("ev-info") ? colour("muted") : m.classList.contains("ev-error") ? colour("bad") : colour("warn")));
  });
  const legend = el("ul", { class: "legend" }, line.phases.map((name, p) => {
    const box = svg("rect", { width: 11, height: 11, rx: 2 });
    drawn(() => box.setAttribute("fill", PHASE_COLOURS[name] === null ? colour("line") : seriesColour(PHASE_COLOURS[name])));
    return totals[p] > 0 ? el("li", {}, svg("svg", { width: 11, height: 11, "aria-hidden": "true" }, box), PHASE_NAMES[name], " ", el("output", {}, `${(100 * totals[p] / all).toFixed(1)} %`)) : null;
  }));
  const merged = line.steps_per_bar > 1 ? ` One bar is ${line.steps_per_bar} steps.` : "";
  return el("figure", {}, el("figcaption", {}, DATA.runs.length > 1 ? run.folder : "Phases on the clock", el("small", {}, `Point at a bar for its seconds. The darker the second row, the more of the time engines generated.${merged}`)),
    el("div", { class: "svgbox scroll", tabindex: 0, role: "group", "aria-label": "Timeline" }, picture), legend);
}

function eventList(run) {
  if (!run.events.length) return el("p", { class: "note" }, "No events were recorded.");
  const left = run.num_events - run.events.length;
  const rows = run.events.map(([t, step, kind, level, text]) => [known(t) ? (t < 0 ? "before" : clock(t)) : "–", show(step), kind, el("span", { class: `level-${level}` }, level === "info" ? "" : `${level}: `, text)]);
  return el("div", {}, left ? el("p", { class: "note" }, `${left} events of level info are left out.`) : null, table(["time", "step", "kind", "what"], rows, [0, 1]));
}

function timeSection() {
  const runs = DATA.runs.filter((run) => run.timeline);
  if (!runs.length) return null;
  const trouble = (run) => run.events.filter(([, , , level]) => level !== "info").length;
  const parts = runs.map((run) => {
    const inside = [timelineFigure(run), el("details", { class: "card", open: trouble(run) > 0 && runs.length === 1 },
      el("summary", {}, `Faults, recoveries and other events (${run.num_events}, of which ${trouble(run)} warnings or errors)`), eventList(run))];
    return el("div", { class: "stack" }, inside);
  });
  const [first, ...others] = parts;
  return section("time", "Time", "What the learner did when, how long it waited, and what happened beside it.", first,
    others.length ? el("details", {}, el("summary", {}, `The other ${others.length} runs`), el("div", { class: "stack" }, others)) : null);
}
