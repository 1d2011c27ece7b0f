import { badge, duration, el, fill, followTheme, link, poll, prose, table, time, timeZone } from "./common.js";

const STATES = ["queued", "launching", "launched", "running"];
const MEANING = {
  queued: "Waiting to be launched",
  launching: "RunTask was called",
  launched: "ECS is starting the task",
  running: "The container is running",
};

function show(data) {
  const scope = document.getElementById("scope");
  const notes = [];
  if (!data.sees_all) notes.push("Shows only Dags that you have permission to read.");
  if (data.cut.includes("in_flight")) notes.push("Too many submissions in flight, so counts are partial.");
  if (data.cut.includes("pools")) notes.push("Too many runners, so counts of runners are partial.");
  scope.textContent = notes.join(" ");
  scope.hidden = notes.length === 0;
  showInFlight(data.in_flight);
  showWaiting(data.waiting, data.read_at);
  showCapacity(data.capacity);
  showPlot("launch", data.latency.launch);
  showPlot("landing", data.latency.landing);
  showPools(data.pools);
  showFailures(data);
}

function showInFlight({ total, states, profiles }) {
  const tile = (name, count, meaning) =>
    el("div", { "data-state": name }, el("dt", { title: meaning }, name), el("dd", {}, String(count)));
  fill("states", tile("total", total, "Not ended"), STATES.map((state) => tile(state, states[state], MEANING[state])));
  if (!profiles.length) return fill("profiles", el("p", { class: "empty" }, "No submissions are in flight."));
  fill("profiles", table("Submissions in flight by profile and state",
    ["Profile", ...STATES.map((state) => `#${title(state)}`), "#Total"],
    profiles.map((row) => [row.profile, ...[...STATES, "total"].map((name) => String(row[name] || "–"))])));
}

function showWaiting(groups, now) {
  if (!groups.length) return fill("waiting", el("p", { class: "empty" }, "No submissions are waiting."));
  fill("waiting", table("Waiting submissions by reason",
    ["Wait Reason", "Profile", "#Submissions", "#Longest Wait", "Details", "First Task Instance"],
    groups.map((group) => [
      el("strong", {}, group.cause),
      group.profile,
      String(group.count),
      duration(Math.max(now - group.since, 0) / 1000),
      words(group.detail, group.advice),
      task(group.first, "waiting"),
    ])));
}

function showCapacity(choices) {
  if (!choices.length) return fill("capacity");
  fill("capacity", el("h3", {}, "Without capacity"), table("Capacity options without capacity",
    ["Profile", "#Consecutive Refusals", "Next Attempt"],
    choices.map((each) => [
      each.choice.replace("/", ", fallback "), String(each.refusals), each.probe_at ? time(each.probe_at) : null])));
}

function showPools(pools) {
  document.getElementById("pools-section").hidden = !pools?.length;
  if (!pools?.length) return;
  const count = (pool, name) => String(pool[name] || "–");
  fill("pools", table("Pools and their runners",
    ["Profile", "#Waiting", "#Stuck", "#Busy", "#Idle", "#Starting", "#Closing", "#Max", "#Min Idle", "Notes"],
    pools.map((pool) => [
      pool.profile,
      ...["waiting", "stuck", "busy", "idle", "starting", "closing", "max", "min_idle"].map((name) => count(pool, name)),
      poolNotes(pool).length ? words(poolNotes(pool).join("; "), pool.advice) : null,
    ])));
}

function poolNotes({ stuck_reasons: reasons, paused, failure }) {
  const notes = reasons.map((reason) => `stuck: ${reason}`);
  if (paused) notes.push("paused");
  if (failure && !reasons.length) notes.push(`runners cannot start: ${failure}`);
  return notes;
}

function showFailures({ failures, ended, since, cut }) {
  const total = Object.values(ended).reduce((sum, count) => sum + count, 0);
  const parts = Object.entries(ended).sort().map(([state, count]) => `${count} ${state}`);
  const from = since ? ["since ", time(since), cut.includes("ended") ? ", earlier ones are not shown" : ""] : [];
  fill("ended", total ? `${total} submissions ended (${parts.join(", ")}) ` : "No submissions ended ", ...from, ".");
  if (!failures.length) return fill("failures", el("p", { class: "empty" }, "No failures."));
  fill("failures", table("The last failures",
    ["Task Instance", "End Date", "State", "Profile", "Reason and Advice"],
    failures.map((row) => [
      task({ submission_id: row.submission_id, ...row.task }, "failures"),
      time(row.ended_at),
      [badge(row.state), row.exit_code === null ? null : el("span", { class: "code" }, ` exit code ${row.exit_code}`)],
      row.profile,
      words(row.reason, row.advice),
    ])));
}

const title = (word) => word[0].toUpperCase() + word.slice(1);

const words = (reason, advice) =>
  [reason ? el("p", {}, reason) : null, advice ? el("p", { class: "advice" }, prose(advice)) : null];

function task(of, where) {
  const name = of.name ?? of.submission_id;
  const more = [of.run_id, of.try_number > 1 ? `try ${of.try_number}` : null].filter(Boolean).join(", ");
  return [link(of.link, name, `${where}/${of.submission_id}`), more ? el("div", { class: "small" }, more) : null];
}

const plots = {};

function showPlot(id, latency) {
  const place = document.getElementById(id);
  plots[id]?.chart?.destroy();
  plots[id] = { latency };
  if (!latency.count) return fill(id, el("p", { class: "empty" }, "No data yet."));
  const figures = [["median", latency.median], ["95th percentile", latency.most], ["longest", latency.longest]];
  const rows = latency.at.flatMap((at, nth) => latency.counts[nth]
    ? [[time(at), String(latency.counts[nth]), duration(latency.p50[nth]), duration(latency.p95[nth])]] : []);
  fill(id,
    el("dl", { class: "figures" }, figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, duration(value))))),
    el("div", { class: "plot", "aria-hidden": "true" }),
    el("details", { "data-key": id }, el("summary", { "data-key": `${id}-summary` }, `Table of ${latency.count} submissions`),
      table("Latency by time", ["From", "#Submissions", "#Median", "#95th Percentile"], rows)));
  draw(id, place.querySelector(".plot"));
}

function draw(id, place) {
  const { latency } = plots[id];
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const line = (label, stroke, width, fill) =>
    ({ label, stroke, width, fill, spanGaps: false, points: { show: latency.at.length < 40, size: 5, fill: stroke }, value: (_, value) => value === null ? "–" : duration(value) });
  const axis = { stroke: color("--muted"), grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false }, font: "12px Inter, system-ui, sans-serif" };
  const hour = "{HH}:{mm}";
  const now = latency.at.at(-1) / 1000 + latency.width / 1000;
  const begin = Math.min(latency.at[0] / 1000, now - 10 * latency.width / 1000);
  const options = {
    width: place.clientWidth, height: 190, padding: [8, 8, 0, 0],
    scales: { x: { range: [begin, now] }, y: { range: (_, __, most) => [0, Math.max(most * 1.1, 0.5)] } },
    axes: [{ ...axis, space: 90, values: (_, values) => values.map((at) => uPlot.fmtDate(at % 60 ? `${hour}:{ss}` : hour)(options.tzDate(at))) }, { ...axis, size: 56, values: (_, values) => values.map((value) => value < 60 ? `${+value.toFixed(2)} s` : `${+(value / 60).toFixed(1)} min`) }],
    series: [{ label: "time", value: (_, at) => at === null ? "–" : uPlot.fmtDate(`${hour}:{ss}`)(options.tzDate(at)) }, line("median", color("--accent"), 2), line("95th percentile", color("--second"), 1.5)],
    cursor: { y: false, points: { size: 7 }, drag: { x: false } },
    tzDate: (at) => timeZone ? uPlot.tzDate(new Date(at * 1000), timeZone) : new Date(at * 1000),
  };
  plots[id].chart = new uPlot(options, [latency.at.map((at) => at / 1000), latency.p50, latency.p95], place);
}

function redraw() {
  for (const [id, plot] of Object.entries(plots)) {
    if (!plot.chart) continue;
    plot.chart.destroy();
    draw(id, document.getElementById(id).querySelector(".plot"));
  }
}

followTheme(redraw);
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth !== width) redraw();
  width = window.innerWidth;
});
poll("api/overview", 10, show);
