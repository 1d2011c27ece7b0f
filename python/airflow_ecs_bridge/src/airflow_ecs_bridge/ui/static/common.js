// Shared code of both pages. Text from other systems becomes text nodes, never markup.

/** Airflow's base URL. This app is mounted directly below it, and this file is in the folder `static` of the app. */
export const base = new URL("../..", import.meta.url);

/** Creates an element with attributes, listeners (`onclick`) and children, which are elements or strings. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replaces the content of an element. A focused link keeps the focus. */
export function fill(id, ...children) {
  const place = document.getElementById(id);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  place.replaceChildren(...children.flat().filter(Boolean));
  for (const each of place.querySelectorAll("details")) each.open = open.has(each.dataset.key);
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** Creates a table with headings. A heading that begins with "#" marks a column of numbers. */
export function table(caption, headings, rows) {
  const isNumber = headings.map((heading) => heading.startsWith("#"));
  const head = headings.map((heading, at) =>
    el("th", { scope: "col", class: isNumber[at] ? "number" : null }, heading.replace("#", "")));
  const body = rows.map((cells) =>
    el("tr", {}, cells.map((cell, at) =>
      at === 0 ? el("th", { scope: "row" }, cell ?? "–")
        // On a narrow screen, each row is a card, and each cell shows its heading.
        : el("td", { class: isNumber[at] ? "number" : null, "data-heading": headings[at].replace("#", "") }, el("div", {}, cell ?? "–")))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

/** Creates a badge in the style of Airflow. The text shows the state too, and `look` sets another color. */
export const badge = (state, look = state) => el("span", { class: "badge", "data-state": look }, state);

/** Creates a link into Airflow's UI. */
export function link(path, text, key) {
  if (!path) return el("span", {}, text);
  const href = new URL(path, base).href;
  return el("a", { href, "data-key": key ?? href, onclick: (event) => follow(event, href) }, text);
}

// Airflow's iframes can neither navigate the outer page nor open windows. Airflow's router follows the history.
function follow(event, href) {
  if (window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { history } = window.parent;
  history.pushState({ idx: (history.state?.idx ?? 0) + 1, key: "ecs-bridge", usr: null }, "", href);
  window.parent.dispatchEvent(new window.parent.PopStateEvent("popstate", { state: history.state }));
}

/** Creates a link to another site, which opens in a new window. */
export const elsewhere = (href, text) =>
  el("a", {
    href, target: "_blank", rel: "noopener noreferrer", onclick: (event) => {
      if (window.parent === window) return;
      event.preventDefault();
      window.parent.open(href, "_blank", "noopener,noreferrer");
    },
  }, text);

/** The time zone of Airflow's UI, or the browser's time zone. */
export const timeZone = (() => {
  try {
    const zone = JSON.parse(localStorage.getItem("timezone")) ?? undefined;
    new Intl.DateTimeFormat([], { timeZone: zone });
    return zone;
  } catch {
    return undefined;
  }
})();

/** Formats a time, with the date unless it is today. The tooltip shows the exact time. */
export function time(at) {
  const date = new Date(at);
  const day = (of) => of.toLocaleDateString([], { timeZone });
  const isToday = day(date) === day(new Date());
  const text = date.toLocaleString([], {
    ...(isToday ? {} : { month: "short", day: "numeric" }), hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone,
  });
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

/** Formats text with `code` in backquotes, as in the advice of the bridge. */
export const prose = (text) =>
  text.split("`").map((part, nth) => (nth % 2 ? el("code", {}, part) : part));

/** Formats seconds as text. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  // Round first, so that 119.7 seconds become 2 minutes, not 1 minute and 60 seconds.
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Polls for data while the page is visible, and passes the data to `show`. */
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
      // Show the content first, because a hidden element has no width to draw into.
      document.getElementById("content").hidden = false;
      show(data);
      problem.hidden = true;
      status.replaceChildren("Updated ", time(Date.now()));
    } catch (error) {
      problem.textContent = error instanceof TypeError ? "Cannot reach Airflow. Retrying." : error.message;
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
  // The UI signs in with a cookie. In Airflow 3.1.0 and 3.1.1, the token is in the local storage instead.
  const token = answer.status === 401 ? localStorage.getItem("token") : null;
  return token ? ask({ Authorization: `Bearer ${token}` }) : answer;
}

function refusal(status, detail) {
  if (status === 401) return "You are not signed in to Airflow, or your session has expired. Reload the page.";
  if (status === 403) return "Access denied. Your Airflow role needs permission to read the cluster activity and task instances.";
  return typeof detail === "string" ? detail : `Airflow returned status ${status}.`;
}

/** Follows the theme of Airflow or of the browser, and calls `changed` after each change. */
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
