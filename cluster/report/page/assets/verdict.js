// What happened and what looks wrong, of each run; and what sets the runs apart.

function stateOf(run) {
  return el("span", { class: `state ${run.state}` }, run.state);
}

function pageTitle() {
  const [run] = DATA.runs;
  return DATA.runs.length > 1 ? el("h1", {}, `${DATA.runs.length} runs, ${DATA.groups.length} method${DATA.groups.length > 1 ? "s" : ""} side by side`) : el("h1", {}, run.name, " ", stateOf(run));
}

function verdictCard(run) {
  return el("div", { class: "card stack" },
    el("div", {}, DATA.runs.length > 1 ? el("h3", {}, run.name, " ", stateOf(run)) : null,
      el("p", { class: "headline" }, run.headline), el("div", { class: "sub mono" }, run.folder)),
    diagnosis(run),
    el("details", { open: DATA.runs.length === 1 }, el("summary", {}, "Facts"),
      el("dl", { class: "facts" }, run.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, unbroken(value)))))),
    run.problems.length ? el("details", { class: "quiet" }, el("summary", {}, `Not known of this run (${run.problems.length})`),
      el("ul", {}, run.problems.map((text) => el("li", {}, text)))) : null);
}

function diagnosis(run) {
  const titles = Object.fromEntries(run.findings.map((f) => [f.cause, f.title]));
  const unknown = run.unknown.length
    ? el("details", { class: "quiet" }, el("summary", {}, `${run.unknown.length} of ${run.num_causes} causes could not be looked for`),
      el("ul", {}, run.unknown.map((u) => el("li", {}, `${u.title}: ${u.reason}`))))
    : null;
  const sentence = run.diagnosis[0].toUpperCase() + run.diagnosis.slice(1);
  if (!run.findings.length) return el("div", { class: "stack" }, el("div", { class: "well" }, `${sentence}.`), unknown);
  return el("div", { class: "stack" }, el("p", {}, el("strong", {}, `${sentence}.`)), run.findings.map((f) => finding(f, titles)), unknown);
}

function finding(f, titles) {
  const follows = f.follows_from.map((cause) => `“${titles[cause]}”`).join(" and ");
  return el("div", { class: follows ? "finding later" : "finding" },
    el(DATA.runs.length > 1 ? "h4" : "h3", {}, f.title), el("p", {}, f.summary),
    follows && el("p", { class: "note" }, `May well follow from ${follows}: mend that first.`),
    el("ul", {}, f.evidence.map((e) => el("li", {}, e.text, " ", el("span", { class: "source" }, e.source)))),
    el("div", {}, f.next_steps.map((step) => el("code", { class: "cmd" }, step))),
    el("details", { class: "quiet" }, el("summary", {}, "Why this limit"), el("p", {}, f.why)));
}

function settingsTable(rows) {
  if (!rows.length) return el("p", { class: "note" }, "None but seeds and names.");
  return table(["setting", ...DATA.groups.map((g) => g.label)], rows.map(([key, values]) => [el("code", {}, key), ...values.map((v) => el("code", { class: "value" }, v))]));
}

function verdictSection() {
  if (DATA.runs.length === 1) return section("verdict", "Verdict", null, verdictCard(DATA.runs[0]));
  const rows = DATA.groups.map((group, i) => {
    const runs = group.members.map((m) => DATA.runs[m]);
    const wrong = runs.filter((run) => run.findings.length);
    const causes = [...new Set(wrong.map((run) => run.findings[0].title))];
    const first = Object.keys(groupCurves(group)).find((key) => /^eval\/[^/]+\/accuracy$/.test(key));
    const curve = first && groupCurves(group)[first];
    const end = curve && curve.values[curve.values.length - 1];
    const ends = curve && curve.low && known(curve.low[curve.low.length - 1])
      ? ` [${show(curve.low[curve.low.length - 1])}, ${show(curve.high[curve.high.length - 1])}]` : "";
    return [el("span", {}, swatch(i, 0), " ", group.label), String(runs.length), runs.map((run) => run.state).filter((s, j, all) => all.indexOf(s) === j).join(", "),
      curve ? show(end) + ends : "–", causes.length ? `${causes.join("; ")} (${wrong.length} of ${runs.length})` : "nothing"];
  });
  const seeds = DATA.groups.some((group) => group.members.length > 1);
  return section("verdict", "Verdict", null,
    el("div", { class: "card stack" }, 
      table(["runs", "seeds", "state", "held-out accuracy at the end", "first cause of trouble"], rows, [1]),
      seeds ? el("p", { class: "note" }, "Runs that differ by their seed only are one line: the mean over seeds, with its Student t interval of 95 %, which may reach beyond what a score can be.") : null),
    el("div", { class: "card stack" }, el("h3", {}, "Settings that differ"),
      settingsTable(DATA.differing.slice(0, 12)), DATA.differing.length > 12 ? el("details", { class: "quiet" }, el("summary", {}, `${DATA.differing.length - 12} more`), settingsTable(DATA.differing.slice(12))) : null),
    DATA.runs.map((run) => el("details", { class: "card" }, el("summary", {}, `${run.folder}: `, run.findings.length ? run.findings[0].title : "nothing looks wrong"), verdictCard(run))));
}
