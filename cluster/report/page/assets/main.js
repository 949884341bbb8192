// The page from top to bottom.

const splits = [...new Set(DATA.runs.flatMap((run) => Object.keys(run.curves)).filter((key) => /^eval\/[^/]+\/accuracy$/.test(key)))];
const LEARNING = [
  { title: "Held-out accuracy", about: "Greedy answers to questions that are not trained on, with intervals of 95 %.", keys: splits.slice(0, DATA.groups.length > 1 ? 1 : 6).map((key) => [key, key.split("/")[1]]) },
  ...(DATA.groups.length > 1 ? splits.slice(1).map((key) => ({ title: `Held-out accuracy, ${key.split("/")[1]}`, keys: [[key, "accuracy"]] })) : []),
  { title: "Reward: observed, true, estimated", about: "What training saw; the true score where it is known; and (observed − FPR) / (1 − FPR − FNR) with the rates that the run estimated.", keys: [["reward/observed_mean", "observed"], ["reward/clean_mean", "true"], ["derived/estimated_mean", "estimated"]] },
  { title: "Prompts without a difference", about: "Prompts whose samples all score the same, so that comparing them teaches nothing.", keys: [["reward/zero_variance_group_frac", "observed scores"], ["reward/clean_zero_variance_group_frac", "true scores"]] },
];
const NOISE = [
  { title: "Wrong answers that score", about: "False positive rate of 0/1 scores: as seen in each batch, and as estimated from re-checked answers.", keys: [["reward/false_positive_rate", "seen"], ["trust/false_positive_rate", "estimated"], ["correction/evidence_false_positive_rate", "evidence's estimate"]] },
  { title: "Right answers that do not", about: "False negative rate, likewise.", keys: [["reward/false_negative_rate", "seen"], ["trust/false_negative_rate", "estimated"], ["correction/evidence_false_negative_rate", "evidence's estimate"]] },
  { title: "J = 1 − both rates", about: "How much one score is worth: 1 never errs, 0 is a coin.", keys: [["reward/j", "seen"], ["trust/j", "estimated"]] },
  { title: "Error and length", about: "Rank correlation of the error with the length of a response; away from 0 the reward prefers long or short ones.", keys: [["trust/error_length_correlation", "correlation"]] },
  { title: "Cells and true scores", about: "Answers that evidence remembers, and those whose true score it knows.", keys: [["correction/evidence_cells", "answers"], ["correction/evidence_gold", "true scores"]] },
  { title: "What evidence makes of scores", keys: [["correction/evidence_change", "mean distance from the observed score"], ["correction/evidence_known_share", "share with a true score"], ["correction/evidence_repeat_share", "share scored before"]] },
  { title: "Scores that are missing", unlessZero: true, keys: [["reward/num_missing", "withheld"], ["reward/num_errors", "failed"], ["reward/num_abstained", "abstained"]] },
  { title: "Votes", keys: [["votes/label_accuracy", "labels that are right"], ["votes/unlabelled_frac", "prompts without a label"]] },
];
const CRITIC = [
  { title: "Explained variance", about: "Of returns by the value: 1 is perfect, 0 no better than a constant. Noise alone keeps it near 0.", keys: [["critic/explained_variance", "explained variance"]], levels: [0] },
  { title: "Values and returns", keys: [["critic/value_mean", "mean value"], ["critic/return_mean", "mean return"]] },
  { title: "PIT over time", about: "Share of returns below each predicted quantile; dotted: where a calibrated critic has them.", keys: [["critic/coverage_q05", "5 %"], ["critic/coverage_q25", "25 %"], ["critic/coverage_q50", "50 %"], ["critic/coverage_q75", "75 %"], ["critic/coverage_q95", "95 %"]], levels: [0.05, 0.25, 0.5, 0.75, 0.95] },
  { title: "Spread and tails", about: "Of the predicted distribution: interquartile range, and standard deviations of its lowest and highest tenth.", keys: [["critic/iqr", "interquartile range"], ["critic/lower_tail_std", "lower tail"], ["critic/upper_tail_std", "upper tail"]] },
  { title: "Heads disagree by", keys: [["critic/head_disagreement", "standard deviation over heads"]] },
  { title: "Critic's loss", keys: [["critic/loss", "loss"], ["critic/quantile_huber_weighted", "quantile regression"]] },
  { title: "Quantiles out of order", keys: [["critic/crossing_frac", "share of neighbours"]] },
];
const POLICY = [
  { title: "Entropy", about: "Mean over sampled tokens, in nats.", keys: [["policy/entropy", "entropy"]] },
  { title: "Way from the start", about: "KL to the starting policy, in nats a token.", keys: [["policy/kl_to_start", "to the start"], ["policy/ref_kl", "to the reference"]] },
  { title: "Sampler and learner apart by", about: "Log-probability of a token, in nats: the 95th percentile, and the guards' 99th for fresh and for older responses.", keys: [["policy/sampler_logprob_gap_p95", "95th"], ["guard/sampler_gap", "99th, fresh"], ["guard/sampler_gap_stale", "99th, older"]] },
  { title: "Gradient norm", about: "Before clipping.", keys: [["policy/grad_norm", "policy"], ["critic/grad_norm", "critic"]] },
  { title: "Clipping and importance weights", keys: [["policy/clip_frac", "tokens clipped"], ["policy/importance_truncated_frac", "weights cut"], ["policy/importance_ess_frac", "effective share"]] },
  { title: "Length of responses", about: "Tokens.", keys: [["rollout/response_tokens_mean", "mean"], ["rollout/response_tokens_max", "longest"]] },
  { title: "Cut and old responses", keys: [["rollout/truncated_frac", "cut at the limit"], ["rollout/mixed_version_frac", "sampled by several versions"]] },
  { title: "Staleness", about: "Updates between sampling and training.", keys: [["rollout/staleness_mean", "mean"], ["rollout/staleness_max", "largest"]] },
  { title: "Advantages", about: "Before whitening.", keys: [["advantage/mean", "mean"], ["advantage/std", "standard deviation"]] },
  { title: "Learning rates", keys: [["policy/lr", "policy"], ["critic/lr", "critic"]] },
  { title: "Throughput", about: "Response tokens trained on, per second.", keys: [["rollout/tokens_per_s", "tokens/s"]] },
];

function chartControls() {
  const out = el("output", {}, String(smoothing));
  return el("div", { class: "controls" }, el("label", {}, "Smoothing", el("input", { type: "range", min: 0, max: 0.95, step: 0.05, value: smoothing, oninput: (event) => { smoothing = Number(event.target.value); out.textContent = event.target.value; drawCharts(); } }), out),
    el("span", { class: "note" }, "Thin lines are raw values. Drag to zoom, double-click to zoom out."));
}

function anyMetric() {
  const keys = [...new Set(DATA.groups.flatMap((group) => Object.keys(groupCurves(group))))].sort();
  const place = el("div", { class: "charts" });
  const select = el("select", { onchange: () => {
    const figure = select.value && chart({ title: select.value, keys: [[select.value, "value"]] });
    if (figure) { place.prepend(figure); drawChart(charts[charts.length - 1]); }
    select.value = "";
  } }, el("option", { value: "" }, "choose one"), keys.map((key) => el("option", { value: key }, key)));
  return section("metrics", "Any metric", `All ${keys.length} metrics of these runs are in this file; docs/metrics.md says what they mean.`, el("div", { class: "controls" }, el("label", {}, "Draw", select)), place);
}

/** Transient and persistent errors, as `dvpo audit RUN` tells them from repeated scores and true ones. */
function ownScores() {
  return DATA.runs.map((run) => el(DATA.runs.length > 1 ? "details" : "div", { class: "card" }, DATA.runs.length > 1 ? el("summary", {}, `By its own scores: ${run.folder}`) : el("h3", {}, "By its own scores"),
    el("ul", {}, run.audit.map((line) => el("li", {}, line.replace(/^\* /, ""))))));
}

function recordsSection() {
  const cards = DATA.runs.map((run) => {
    const l = run.ledger;
    const rows = !l ? [] : [...Object.entries(l.states).map(([k, v]) => [`samples ${k}`, String(v)]), ...Object.entries(l.dropped).slice(0, 8).map(([k, v]) => [`dropped: ${k}`, String(v)]),
      ...Object.entries(l.reissued).slice(0, 8).map(([k, v]) => [`asked for again: ${k}`, String(v)]), ["returns to a checkpoint", String(l.num_rollbacks)], ...l.longest.map(([id, n]) => [`among the longest: ${id}`, `${n} tokens`])];
    const text = el("p", { class: "note" }, "Not recorded by a run, and so not here: the seconds that single prompts and single calls of rewards took. `dvpo reward test` times calls of a reward; dvpo ledger RUN proves that no sample was lost.");
    return el(DATA.runs.length > 1 ? "details" : "div", { class: "card" }, DATA.runs.length > 1 ? el("summary", {}, run.folder) : null, l ? table(["what", "number"], rows, [1]) : el("p", { class: "note" }, "There is no ledger that could be read."), text);
  });
  return section("records", "Samples", "What became of them, by the ledger.", el("div", { class: "stack" }, cards));
}

function build() {
  const main = document.getElementById("main");
  const critic = chartSection("critic", "Critic", "Whether values say anything of returns, and whether their spread is right.", CRITIC);
  const noise = chartSection("noise", "Noise", "How the reward errs, as far as true scores tell.", NOISE) || section("noise", "Noise", "No metric says how the reward errs.");
  noise.append(el("div", { class: "stack", style: "margin-top:.9rem" }, ownScores()));
  const calibration = critic && calibrationFigure();
  if (calibration) critic.querySelector(".charts").prepend(calibration);
  const parts = [
    verdictSection(),
    chartSection("learning", "Learning", null, LEARNING),
    noise,
    critic,
    chartSection("policy", "Policy", "Whether updates are of a healthy size, and responses of a healthy form.", POLICY),
    timeSection(), browserSection(), anyMetric(), recordsSection(),
  ].filter(Boolean);
  const order = ["verdict", "learning", "noise", "critic", "policy", "time", "trajectories", "metrics", "records"];
  const links = [...document.querySelectorAll("#nav a")].sort((a, b) => order.indexOf(a.hash.slice(1)) - order.indexOf(b.hash.slice(1)));
  document.getElementById("nav").replaceChildren(...links);
  const learning = parts.find((part) => part.id === "learning") || parts[1];
  if (charts.length) learning.insertBefore(chartControls(), learning.querySelector(".charts"));
  main.append(pageTitle(), ...parts);
  const thinned = DATA.thinned ? ` Curves have ${DATA.thinned.points} points of up to ${DATA.thinned.of}, each the mean of its neighbours.` : "";
  document.getElementById("foot").append(el("p", {}, `Made by dvpo ${DATA.version}. One file, no network.${thinned} Numbers are rounded to 3 or 4 digits.`));
  drawCharts();
  redraws.push(drawCharts);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawCharts(); } });
}

build();
