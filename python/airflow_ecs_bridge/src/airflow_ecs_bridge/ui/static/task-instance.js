import { badge, duration, el, elsewhere, fill, followTheme, poll, prose, table, time } from "./common.js";

const KIND = { worker: "Airflow’s worker", command: "The operator’s command" };
const FACTS = {
  profile: "Profile", runs_on: "Capacity", cpu: "CPU units", memory: "Memory (MiB)", priority: "Priority",
  cluster: "Cluster", container_name: "Container", task_arn: "ECS task",
};

// Airflow 3.1 puts IDs into the URL without encoding, and later versions encode them. So a plus is never a space.
function asked() {
  const parts = new URLSearchParams(location.search.replaceAll("+", "%2B"));
  const index = parts.get("map_index") ?? "";
  // For a task instance that is not mapped, the URL contains the placeholder.
  parts.set("map_index", /^-?\d+$/.test(index) ? index : "-1");
  return parts;
}

function show({ tries }) {
  const known = tries.filter((each) => each.submissions.length);
  if (!known.length) {
    return fill("content", el("p", { class: "empty" },
      "The bridge has no submission for this task instance. The executor has not submitted it yet, another executor ran it, or its record has expired."));
  }
  fill("content", tries.map((each) =>
    el("section", { "aria-label": `Try ${each.try_number}` },
      el("h2", {}, `Try ${each.try_number} `, each.state ? [badge(each.state), el("span", { class: "small" }, " in Airflow")] : null),
      each.warning ? el("p", { class: "problem" }, each.warning) : null,
      each.submissions.length ? each.submissions.map(submission)
        : el("p", { class: "empty" }, "The bridge has no submission for this try."))));
}

function submission(of) {
  const ended = of.exit_code === null ? null : el("span", { class: "code" }, ` exit code ${of.exit_code}`);
  const facts = Object.entries(FACTS).filter(([name]) => of.facts[name] !== undefined).map(([name, text]) => [text, String(of.facts[name])]);
  if (of.runner_id) facts.push(["Runner", of.runner_id]);
  if (of.stop_code) facts.push(["ECS stop code", of.stop_code]);
  return el("article", { class: "card" },
    el("h3", {}, `${KIND[of.kind]} `, badge(of.state, of.overruled ? "overruled" : of.state), ended),
    of.waits_for ? el("p", {}, el("strong", {}, `Waiting for ${of.waits_for.cause}: `), of.waits_for.detail) : null,
    [of.waits_for ? null : of.reason, of.stopped_reason].filter(Boolean).map((reason) => el("p", {}, reason)),
    of.advice ? el("p", { class: "advice" }, prose(of.advice)) : null,
    timeline(of.timeline),
    attempts(of),
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    of.log ? el("p", {}, elsewhere(of.log, "Container log in CloudWatch")) : null,
    el("p", { class: "small" }, "More: ", el("code", {}, `ecs-bridge show ${of.submission_id}`)));
}

function timeline(steps) {
  return el("ol", { class: "timeline", "aria-label": "Timeline" }, steps.map(({ at, what }, nth) =>
    el("li", {},
      el("span", { class: "what" }, what), " ", time(at),
      nth ? el("span", { class: "small" }, ` +${duration((at - steps[nth - 1].at) / 1000)}`) : null)));
}

function attempts({ attempt, attempts: before, state, overruled }) {
  if (!before.length) return null;
  // The record keeps only the last attempts.
  const first = Math.max(attempt - before.length, 1);
  return table("Attempts", ["Attempt", "Result"], [
    ...before.map((end, nth) => [String(first + nth), end]), [String(attempt), badge(state, overruled ? "overruled" : state)]]);
}

followTheme();
poll(`api/task-instance?${asked()}`, 5, show);
