// Trajectories: a list that can be sorted and searched, and each one token by token; one more can be kept beside it.

const SORTS = {
  surprise: ["most surprising score", (s) => s.surprise, true], high: ["highest score", (s) => s.observed, true], low: ["lowest score", (s) => s.observed, false],
  long: ["longest", (s) => s.length, true], short: ["shortest", (s) => s.length, false], disagreement: ["heads disagree most", (s) => s.disagreement, true],
  late: ["newest", (s) => s.step, true], early: ["oldest", (s) => s.step, false],
};

/** White space made visible, so that a token is never nothing. */
function printable(text) {
  return text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ +$/, (t) => "␣".repeat(t.length)) || "∅";
}

function score(name, value, title) {
  return known(value) ? el("span", { class: "badge", title }, `${name} ${show(value)}`) : null;
}

function says(role, text) {
  return el("div", {}, el("div", { class: "role" }, role), el("div", { class: "says" }, text));
}

function trajectory(sample, run, actions) {
  const told = el("div", { "aria-live": "polite" });
  const tokens = sample.tokens ? tokenView(sample, told) : null;
  const sureOf = run.belief ? `the right score as believed: ${run.belief}` : null;
  const facts = [
    ["training step", String(sample.step)],
    ["finished by", sample.finish || "not recorded"],
    ["weight versions", sample.versions ? (sample.versions[0] === sample.versions[1] ? String(sample.versions[0]) : `${sample.versions[0]} to ${sample.versions[1]}`) : "not recorded"],
    ["parts of the reward, before noise", sample.parts ? Object.entries(sample.parts).map(([n, v]) => `${n} ${show(v)}`).join(", ") : "not recorded"],
    ["handed to the method", known(sample.corrected) ? show(sample.corrected) : "as observed, or not recorded"],
    ["scores of the same answer", sample.cell ? `${sample.cell[0]}, mean ${show(sample.cell[1] / Math.max(1, sample.cell[0]))}${known(sample.cell[2]) ? `; true score ${show(sample.cell[2])}` : ""}` : "not recorded"],
    ["probability of being right", known(sample.posterior) ? show(sample.posterior) : "not known"],
  ];
  return el("article", { class: "card one", "aria-label": `Trajectory ${sample.id}` },
    el("div", { class: "head" }, el("h3", { class: "mono" }, sample.id), actions),
    el("p", {}, score("observed", sample.observed, "what training saw"), " ", score("true", sample.clean, "before noise, or what reward.gold said"), " ", score("believed", sample.posterior, sureOf), " ", score("surprise", sample.surprise, "distance of the observed score from the right one")),
    sample.prompt.map(([role, text]) => says(role, text)), known(sample.reference) ? says("reference", sample.reference) : null,
    sample.turns ? sample.turns.map(([role, text]) => says(role, text)) : says("response", sample.response), tokens, told,
    el("details", {}, el("summary", {}, "Rewards, versions, cell"), el("dl", { class: "facts" }, facts.map(([n, v]) => el("div", {}, el("dt", {}, n), el("dd", {}, v))))),
    sample.tokens ? tokenTable(sample) : el("p", { class: "note" }, "Nothing was recorded of its tokens: logging.token_trace_kib was 0, had no room for it, or the run is of an earlier version."));
}

function tokenView(sample, told) {
  const t = sample.tokens;
  const sizes = t.advantages.filter(known).map(Math.abs);
  const largest = Math.max(1e-9, ...sizes);
  let chosen = -1;
  const choose = (i, focus) => {
    if (i < 0 || i >= buttons.length) return;
    if (chosen >= 0) { buttons[chosen].setAttribute("aria-pressed", "false"); buttons[chosen].tabIndex = -1; }
    chosen = i;
    buttons[i].setAttribute("aria-pressed", "true");
    buttons[i].tabIndex = 0;
    if (focus) buttons[i].focus();
    if (picture) picture.mark(i);
    told.replaceChildren(tokenFacts(sample, i));
  };
  const buttons = t.texts.map((text, i) => {
    const advantage = t.advantages[i];
    const sampled = !t.sampled || t.sampled[i];
    const part = known(advantage) ? Math.abs(advantage) / largest : 0;
    const way = !sampled ? "said" : !known(advantage) || part < 0.02 ? "" : advantage > 0 ? "up" : "down";
    const label = sampled ? `token ${i + 1}, ${printable(text)}, advantage ${show(advantage)}` : `${printable(text)}, not sampled`;
    const back = known(advantage) ? `background:rgba(var(--${advantage > 0 ? "pos" : "neg"}), ${(0.5 * part).toFixed(3)})` : null;
    return el("button", { type: "button", class: `tok ${way}`, style: back, tabindex: i ? -1 : 0, "aria-pressed": "false", "aria-label": label, onclick: () => choose(i), onkeydown: (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -i, End: buttons.length - 1 - i }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      choose(i + move, true);
    } }, printable(text));
  });
  const picture = t.values ? fan(sample, (i) => choose(i)) : null;
  const heads = picture ? t.values.find(Boolean).length : 0;
  return el("div", { class: "stack" },
    el("div", {}, el("div", { class: "role" }, "tokens by advantage"), el("div", { class: "tokens", role: "group", "aria-label": "Tokens; arrow keys move between them" }, buttons),
      el("p", { class: "note" }, `−${show(largest)} `, el("span", { class: "ramp", "aria-hidden": "true" }), ` +${show(largest)}. Solid underline: made likelier; dashed: less likely.`, t.left ? ` ${t.left} more tokens were not recorded.` : "")),
    picture ? el("div", {}, el("div", { class: "role" }, "value before each token"), el("div", { class: "svgbox" }, picture),
      el("p", { class: "note" }, t.levels.length > 1 ? `Bands: quantiles from ${show(100 * t.levels[0], 2)} % to ${show(100 * t.levels[t.levels.length - 1], 2)} % of the mean over heads; thick line: the median.` : "A critic with a single value.", heads > 1 ? ` Thin lines: the mean of each of ${heads} heads.` : "")) : el("p", { class: "note" }, "The method has no critic, so there are no values."));
}

function tokenFacts(sample, i) {
  const t = sample.tokens;
  const change = known(t.new[i]) && known(t.old[i]) ? t.new[i] - t.old[i] : null;
  const chance = (logprob) => (known(logprob) ? `${show(logprob)} (${show(100 * Math.exp(logprob))} %)` : "–");
  const rows = [["token", printable(t.texts[i])], ["advantage", show(t.advantages[i])], ["sampler's log-probability", chance(t.sampler[i])], ["learner's, before the update", chance(t.old[i])], ["after the update", chance(t.new[i]) + (known(change) ? `, ${change >= 0 ? "+" : ""}${show(change)}` : "")]];
  if (t.values && t.values[i]) t.values[i].forEach((head, h) => rows.push([t.values[i].length > 1 ? `value by head ${h + 1}` : "value", head.length > 1 ? `${show(head[Math.floor(head.length / 2)])} (${show(head[0])} to ${show(head[head.length - 1])})` : show(head[0])]));
  return el("dl", { class: "facts" }, rows.map(([n, v]) => el("div", {}, el("dt", {}, n), el("dd", { class: "mono" }, v))));
}

function tokenTable(sample) {
  const t = sample.tokens;
  const details = el("details", { class: "quiet" }, el("summary", {}, "Tokens as a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const rows = t.texts.map((text, i) => [String(i + 1), el("code", {}, printable(text)), show(t.advantages[i]), show(t.sampler[i]), show(t.old[i]), show(t.new[i]), t.values && t.values[i] ? show(ensemble(t.values[i])[Math.floor(t.levels.length / 2)]) : "–"]);
    details.append(table(["place", "token", "advantage", "sampler", "before", "after", "median value"], rows, [0, 2, 3, 4, 5, 6]));
  });
  return details;
}

function browserSection() {
  const all = DATA.runs.flatMap((run, r) => run.samples.map((sample) => ({ ...sample, run: r })));
  if (!all.length) return section("trajectories", "Trajectories", null, el("p", { class: "note" }, "None are logged: logging.trajectory_samples_per_step was 0."));
  const state = { sort: all.some((s) => known(s.surprise)) ? "surprise" : "late", find: "", run: -1, pinned: null, chosen: null };
  const list = el("ul", { class: "list card", "aria-label": "Trajectories" });
  const pair = el("div", { class: "pair" });
  const count = el("span", { class: "note", role: "status" });
  const button = (text, act) => el("button", { type: "button", onclick: act }, text);
  function showChosen() {
    const pin = button("Keep beside", () => { state.pinned = state.chosen; showChosen(); });
    const drop = button("Put away", () => { state.pinned = null; showChosen(); });
    const card = (s, action) => trajectory(s, DATA.runs[s.run], action);
    pair.replaceChildren(...[state.pinned && card(state.pinned, drop), state.chosen && state.chosen !== state.pinned && card(state.chosen, pin)].filter(Boolean));
    for (const item of list.querySelectorAll("button")) item.setAttribute("aria-current", item.sample === state.chosen ? "true" : "false");
  }
  function fillList() {
    const [, of, down] = SORTS[state.sort];
    const wanted = state.find.toLowerCase();
    const kept = all.filter((s) => (state.run < 0 || s.run === state.run) && (!wanted || JSON.stringify([s.id, s.prompt, s.response, s.reference]).toLowerCase().includes(wanted)));
    kept.sort((a, b) => (known(of(b)) - known(of(a))) || (down ? of(b) - of(a) : of(a) - of(b)) || b.step - a.step);
    list.replaceChildren(...kept.slice(0, 400).map((s) => el("li", {}, item(s))));
    count.textContent = `${kept.length} of ${all.length}` + (kept.length > 400 ? ", the first 400 are listed" : "");
    if (!kept.includes(state.chosen)) state.chosen = kept[0] || null;
    showChosen();
  }
  function item(s) {
    const made = el("button", { type: "button", onclick: () => { state.chosen = s; showChosen(); } },
      el("span", { class: "what" }, el("span", {}, `step ${s.step}`), el("span", {}, known(s.clean) ? `score ${show(s.observed)}, true ${show(s.clean)}` : `score ${show(s.observed)}`)),
      el("span", { class: "snip" }, printable(s.response.slice(0, 80))));
    made.sample = s;
    return made;
  }
  list.addEventListener("keydown", (event) => {
    const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = way && event.target.closest("li")[way];
    if (!next) return;
    event.preventDefault();
    next.firstChild.focus();
    next.firstChild.click();
  });
  const choice = (label, options, value, act) => el("label", {}, label, el("select", { onchange: (event) => { act(event.target.value); fillList(); } }, options.map(([v, text]) => el("option", { value: v, selected: String(v) === String(value) }, text))));
  const sorts = Object.entries(SORTS).filter(([, [, of]]) => all.some((s) => known(of(s)))).map(([name, [text]]) => [name, text]);
  const several = DATA.runs.filter((run) => run.samples.length).length > 1;
  const controls = el("div", { class: "controls" }, choice("Sort by", sorts, state.sort, (v) => (state.sort = v)),
    several ? choice("Run", [[-1, "all"], ...DATA.runs.map((run, r) => [r, run.folder])], -1, (v) => (state.run = Number(v))) : null,
    el("label", {}, "Find", el("input", { type: "search", oninput: (event) => { state.find = event.target.value; fillList(); } })), count);
  const logged = DATA.runs.reduce((sum, run) => sum + run.num_samples, 0);
  const thinned = logged > all.length ? ` ${all.length} of ${logged} logged ones are in this file: half are spread over the steps, half are the most surprising.` : "";
  const believed = DATA.runs.map((run) => run.belief).find(Boolean);
  const node = section("trajectories", "Trajectories", `What was said, how it was scored, and what each token was worth to the method.${thinned}`, controls,
    el("p", { class: "note" }, believed ? `Surprise: distance of the observed score from what is believed to be right (${believed}).` : "Surprise: distance of the observed score from the true one, where that is known."),
    el("div", { class: "browse" }, list, pair));
  fillList();
  return node;
}
