// What both pages share. Texts of other systems become text nodes, never markup.

/** Airflow's base URL: this app is mounted right below it, and this file is in its folder `static`. */
export const base = new URL("../..", import.meta.url);

/** An element with attributes, listeners (`onclick`), and children that are elements or texts. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace what is in an element; the link that has the focus keeps it. */
export function fill(id, ...children) {
  const place = document.getElementById(id);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  place.replaceChildren(...children.flat().filter(Boolean));
  for (const each of place.querySelectorAll("details")) each.open = open.has(each.dataset.key);
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** A table with headings; a column whose heading begins with "#" has numbers. */
export function table(caption, headings, rows) {
  const isNumber = headings.map((heading) => heading.startsWith("#"));
  const head = headings.map((heading, at) =>
    el("th", { scope: "col", class: isNumber[at] ? "number" : null }, heading.replace("#", "")));
  const body = rows.map((cells) =>
    el("tr", {}, cells.map((cell, at) =>
      at === 0 ? el("th", { scope: "row" }, cell ?? "–")
        // On a narrow screen, where each row is a card, its heading stands beside it.
        : el("td", { class: isNumber[at] ? "number" : null, "data-heading": headings[at].replace("#", "") }, el("div", {}, cell ?? "–")))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

/** A state as Airflow's badges look; its name says what the colour does. */
export const badge = (state) => el("span", { class: "badge", "data-state": state }, state);

/** A link into Airflow's UI. */
export function link(path, text, key) {
  if (!path) return el("span", {}, text);
  const href = new URL(path, base).href;
  return el("a", { href, "data-key": key ?? href, onclick: (event) => follow(event, href) }, text);
}

// Airflow's iframes may neither navigate the page around them nor open windows. Its router follows the history.
function follow(event, href) {
  if (window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { history } = window.parent;
  history.pushState({ idx: (history.state?.idx ?? 0) + 1, key: "ecs-bridge", usr: null }, "", href);
  window.parent.dispatchEvent(new window.parent.PopStateEvent("popstate", { state: history.state }));
}

/** A link to another site, in a window of its own. */
export const elsewhere = (href, text) =>
  el("a", {
    href, target: "_blank", rel: "noopener noreferrer", onclick: (event) => {
      if (window.parent === window) return;
      event.preventDefault();
      window.parent.open(href, "_blank", "noopener,noreferrer");
    },
  }, text);

/** The zone that Airflow's UI shows times in, else the browser's. */
export const timeZone = (() => {
  try {
    const zone = JSON.parse(localStorage.getItem("timezone")) ?? undefined;
    new Intl.DateTimeFormat([], { timeZone: zone });
    return zone;
  } catch {
    return undefined;
  }
})();

/** A time of day, with the date if it is not today's, and the exact time for those who ask. */
export function time(at) {
  const date = new Date(at);
  const day = (of) => of.toLocaleDateString([], { timeZone });
  const isToday = day(date) === day(new Date());
  const text = date.toLocaleString([], {
    ...(isToday ? {} : { month: "short", day: "numeric" }), hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone,
  });
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

/** A text whose `words` are code, as the bridge writes its advice. */
export const prose = (text) =>
  text.split("`").map((part, nth) => (nth % 2 ? el("code", {}, part) : part));

/** Seconds for people. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  // Rounded first: 119.7 seconds are two minutes, not one minute and 60 seconds.
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Ask for data again and again while somebody looks; `show` gets it, with the seconds since the last answer. */
export function poll(path, seconds, show) {
  let timer;
  const status = document.getElementById("status");
  const problem = document.getElementById("problem");

  async function ask() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await get(path);
      const data = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(refusal(answer.status, data.detail));
      // First: what is hidden has no width to draw into.
      document.getElementById("content").hidden = false;
      show(data);
      problem.hidden = true;
      status.replaceChildren("Updated ", time(Date.now()));
    } catch (error) {
      problem.textContent = error instanceof TypeError ? "Airflow does not answer. The page tries again." : error.message;
      problem.hidden = false;
      status.textContent = "";
    }
    timer = setTimeout(ask, seconds * 1000);
  }
  document.addEventListener("visibilitychange", ask);
  ask();
}

async function get(path) {
  const ask = (headers) => fetch(path, { credentials: "same-origin", headers: { Accept: "application/json", ...headers } });
  const answer = await ask({});
  // The UI signs in by a cookie; that of Airflow 3.1.0 and 3.1.1 has moved its token from there.
  const token = answer.status === 401 ? localStorage.getItem("token") : null;
  return token ? ask({ Authorization: `Bearer ${token}` }) : answer;
}

function refusal(status, detail) {
  if (status === 401) return "You are not signed in to Airflow, or your session has ended. Reload the page.";
  if (status === 403) return "You may not see this: it needs the permissions to read the cluster activity and task instances.";
  return typeof detail === "string" ? detail : `Airflow answered with status ${status}.`;
}

/** Follow the theme of Airflow around this page, else the browser's; `changed` is called after each change. */
export function followTheme(changed = () => {}) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const around = window.parent === window ? null : window.parent.document;
  const apply = () => {
    const theme = around?.documentElement.classList;
    const isDark = theme?.contains("dark") || (!theme?.contains("light") && dark.matches);
    const root = document.documentElement;
    if (root.dataset.theme === (isDark ? "dark" : "light")) return;
    root.dataset.theme = isDark ? "dark" : "light";
    const colours = around ? [around.body, around.documentElement].map((each) => window.parent.getComputedStyle(each).backgroundColor) : [];
    const colour = colours.find((each) => !each.endsWith(", 0)"));
    if (colour) root.style.setProperty("--bg", colour);
    changed();
  };
  if (around) new MutationObserver(apply).observe(around.documentElement, { attributeFilter: ["class"] });
  dark.addEventListener("change", apply);
  apply();
}
