"""The page in Airflow's UI, in a browser, below a path, with a run in flight."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browser import chromium, find
from stacks import scheduler_environment

from local_stack import PATIENCE, TERMINAL, LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import FrameLocator, Page

MARKUP = "<img src=x onerror=\"document.title = 'run'\"> is no image"
SECONDS = 600
COLOURS = """element => ["backgroundColor", "color"].map((name) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = getComputedStyle(element)[name];
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data.slice(0, 3).reduce((sum, part) => sum + part, 0);
})"""
"""The brightness of an element's background, and of its text."""
PASSWORDS = {"op": "only-for-this", "viewer": "only-for-that"}


@pytest.fixture(scope="module")
def browser() -> str:
    program = find()
    if program is None:
        pytest.skip("there is no chromium on PATH, and this is no root on Debian who could install it")
    return program


@pytest.fixture(scope="module")
def run(airflow, stack: LocalStack, browser: str) -> Iterator[str]:
    """A run whose first task is in its container, and commands of other callers: one runs, one has failed, one lies."""
    stack.submit({"submission_id": "page-runs", "command": ["sleep", "600"]})
    stack.submit({"submission_id": "page-fails", "command": ["sh", "-c", "exit 127"]})
    airflow.until("it has failed", lambda: stack.row("page-fails")["state"] == "failed", SECONDS)
    failed = stack.row("page-fails")
    now = int(time.time() * 1000)
    stack.table.put_item(Item={**failed, "submission_id": "page-lies", "reason": MARKUP, "changed_at": now})
    airflow.ran.with_name(airflow.ran.name + ".quick").unlink(missing_ok=True)
    with airflow.scheduler(scheduler_environment(stack, AIRFLOW__CORE__PARALLELISM="1")):
        run = airflow.trigger("long")
        airflow.until("it runs", lambda: "runs -1 runs" in airflow.lines(run))
        yield run
        airflow.call("PATCH", f"/api/v2/dags/long/dagRuns/{run}", {"state": "failed"})
    stack.stop("page-runs")


@pytest.fixture(scope="module")
def url(airflow, stack: LocalStack, run: str) -> Iterator[str]:
    """An API server below a path, with the bridge's options, that asks who is there."""
    passwords = airflow.home / "page-passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    users = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{name}" for name in PASSWORDS),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    with airflow.api_server(scheduler_environment(stack, **users), "/team/airflow") as url:
        yield url


def token(url: str, user: str) -> str:
    body = json.dumps({"username": user, "password": PASSWORDS[user]}).encode()
    request = urllib.request.Request(f"{url}/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return str(json.load(answer)["access_token"])


def overview(url: str, user: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token(url, user)}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/ecs-bridge/api/overview", headers=headers)) as answer:
        return dict(json.load(answer))


@pytest.fixture(scope="module")
def page(browser: str, url: str) -> Iterator[Page]:
    """The page as the UI shows it; what the browser complains about fails the tests."""
    complaints: list[str] = []
    with chromium(browser, viewport={"width": 1360, "height": 1600}, color_scheme="light") as context:
        # As the login sets it.
        path = urlsplit(url).path + "/"
        context.add_cookies(
            [{"name": "_token", "value": token(url, "op"), "domain": "127.0.0.1", "path": path, "httpOnly": True}]
        )
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/plugin/ecs-bridge")
        yield page
        assert not [text for text in complaints if "ecs-bridge" in text or "Content Security Policy" in text]


@pytest.fixture
def frame(page: Page, url: str) -> FrameLocator:
    """The page inside of its iframe."""
    if "/plugin/ecs-bridge" not in page.url:
        page.goto(f"{url}/plugin/ecs-bridge")
    frame = page.frame_locator("iframe")
    frame.locator("#content").wait_for()
    return frame


def counts_on(frame: FrameLocator) -> dict[tuple[str, str], int]:
    rows = frame.locator("#profiles tbody tr")
    headings = frame.locator("#profiles thead th").all_inner_texts()
    seen: dict[tuple[str, str], int] = {}
    for cells in (row.locator("th, td").all_inner_texts() for row in rows.all()):
        for state, count in zip(headings[1:-1], cells[1:-1], strict=True):
            if count != "–":
                seen[cells[0], state.lower()] = int(count)
    return seen


def test_the_counts_are_those_of_the_table(airflow, stack, frame):
    def is_equal() -> bool:
        in_flight = [row for row in stack.rows() if row["state"] not in TERMINAL and "runner" not in row]
        return counts_on(frame) == Counter((row["profile"], row["state"]) for row in in_flight)

    airflow.until("the page counts what the table has", is_equal, SECONDS)
    assert counts_on(frame)["default", "running"] >= 2
    total = frame.locator('#states [data-state="total"] dd').inner_text()
    assert int(total) == sum(counts_on(frame).values())
    assert frame.locator(".uplot canvas").count() == 2


def test_texts_of_others_are_texts(frame, page):
    failures = frame.locator("#failures")
    failures.get_by_text("is no image").wait_for()
    assert MARKUP in failures.inner_text()
    assert failures.locator("img").count() == 0
    assert "The image has no such command" in failures.inner_text()


def test_the_page_follows_the_theme_of_the_ui(frame, page):
    colours = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        frame.locator(f':root[data-theme="{theme}"]').wait_for()
        page.locator(f"html.{theme}").wait_for()
        colours[theme] = frame.locator("body").evaluate(COLOURS)
    (light, dark_text), (dark, light_text) = colours["light"], colours["dark"]
    assert min(light, light_text) > 500
    assert max(dark, dark_text) < 200
    page.emulate_media(color_scheme="light")


PHONE = {"width": 390, "height": 844}


def test_the_page_fits_a_phone(frame, page):
    desk = page.viewport_size
    page.set_viewport_size(PHONE)
    try:
        frame.locator("#failures td[data-heading]").first.wait_for()
        body = frame.locator("body")
        assert body.evaluate("body => body.scrollWidth <= body.clientWidth"), "it scrolls sideways"
        # A reason has a line for several words, not one for each.
        reason = frame.locator("#failures p", has_text="is no image").first
        words = len(reason.inner_text().split())
        lines = reason.evaluate("p => p.getBoundingClientRect().height / parseFloat(getComputedStyle(p).lineHeight)")
        assert lines <= words / 2 + 1
        rows = frame.locator("tbody tr").count()
        assert body.evaluate("body => body.scrollHeight") < 2_000 + 260 * rows
        headings = frame.locator("#failures td").evaluate_all(
            "cells => cells.map((cell) => getComputedStyle(cell, '::before').content)"
        )
        assert '"State"' in headings
    finally:
        page.set_viewport_size(desk)


def test_tables_without_rows_say_so(frame, page, url):
    data = overview(url, "op")
    nothing = {"count": 0, "at": [], "p50": [], "p95": []}
    data |= {"waiting": [], "capacity": [], "pools": [], "failures": [], "ended": {}}
    data |= {"latency": {"launch": nothing, "landing": nothing}}
    data["in_flight"] = {"total": 0, "states": dict.fromkeys(data["in_flight"]["states"], 0), "profiles": []}
    page.route("**/ecs-bridge/api/overview", lambda route: route.fulfill(json=data))
    try:
        page.reload()
        for text in (
            "No submissions are in flight.",
            "No submissions are waiting.",
            "No failures.",
            "No submissions ended",
        ):
            frame.get_by_text(text).first.wait_for()
        assert frame.locator("table").count() == 0
        assert frame.locator("#pools-section").is_hidden()
    finally:
        page.unroute("**/ecs-bridge/api/overview")
        page.reload()


def test_what_is_refused_or_not_answered_is_told(frame, page):
    answers = [
        (lambda route: route.abort("connectionrefused"), "Cannot reach Airflow"),
        (lambda route: route.fulfill(status=503, json={"detail": "the table is gone"}), "the table is gone"),
        (lambda route: route.fulfill(status=502, body="<html>a proxy's page</html>"), "status 502"),
    ]
    for answer, told in answers:
        page.route("**/ecs-bridge/api/overview", answer)
        page.reload()
        frame.locator("#problem", has_text=told).wait_for()
        page.unroute("**/ecs-bridge/api/overview")
    # And it recovers by itself.
    frame.locator("#content").wait_for()
    frame.locator("#problem").wait_for(state="hidden")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.9996, "1.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (119.7, "2 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7199, "2 h 0 min"),
        (86399, "1 d 0 h"),
        (172799, "2 d 0 h"),
    ],
)
def test_a_duration_has_no_sixty_seconds(frame, seconds, text):
    told = frame.locator("body").evaluate(
        "async (_, seconds) => (await import('./static/common.js')).duration(seconds)", seconds
    )
    assert told == text


def test_the_icon_is_legible_on_any_background(page, url):
    """Airflow gives the selected item of the navigation a dark background, in the light theme too."""
    for theme, backgrounds in {"icon": ("#ffffff", "#017cee", "#18181b"), "icon-dark": ("#171d2b", "#017cee")}.items():
        for background in backgrounds:
            contrast = page.evaluate(CONTRAST, [f"{url}/ecs-bridge/static/{theme}.svg", background])
            assert contrast >= 3, (theme, background)


CONTRAST = """async ([source, background]) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 48;
    const context = canvas.getContext("2d");
    context.fillStyle = background;
    context.fillRect(0, 0, 48, 48);
    context.drawImage(image, 0, 0, 48, 48);
    const { data } = context.getImageData(0, 0, 48, 48);
    const light = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const part = (at, share) => share * light(data[at] / 255);
    const luminance = (at) => part(at, 0.2126) + part(at + 1, 0.7152) + part(at + 2, 0.0722);
    const all = Array.from({ length: data.length / 4 }, (_, nth) => luminance(nth * 4));
    const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const far = all.map((each) => contrast(each, all[0])).sort((a, b) => b - a);
    return far[60];
}"""
"""The contrast to its background of the sixtieth of an icon's pixels, as WCAG defines it."""


def test_a_link_leads_to_the_task_instance_and_its_tab_shows_the_submission(airflow, stack, frame, page, url, run):
    # The task's own container: the first that waits or fails has a link, so this one is made to.
    id = airflow.task_instances(run)["runs", -1]["external_executor_id"]
    row = stack.row(id)
    now = int(time.time() * 1000)
    ended = {name: value for name, value in row.items() if name not in ("due", "check_at")}
    ended |= {"submission_id": "page-links", "state": "failed", "feed": stack.ready["deployment"], "changed_at": now}
    stack.table.put_item(Item=ended)
    frame.locator("#failures a", has_text="long.runs").click()
    page.wait_for_url(re.compile(r"/team/airflow/dags/long/runs/[^/]+/tasks/runs"))
    page.locator('a[href$="/plugin/ecs-bridge-task"]').click()
    tab = page.frame_locator("iframe")
    tab.get_by_text("Try 1").wait_for()
    card = tab.locator(".card")
    assert card.locator(".badge").inner_text() == "running"
    assert card.locator(".timeline .what").all_inner_texts() == ["submitted", "launched on FARGATE", "started"]
    assert f"ecs-bridge show {id}" in card.inner_text()
    assert row["task_arn"] in card.inner_text()


def test_the_tab_shows_the_attempts(airflow, stack, page, url, run):
    id = airflow.task_instances(run)["runs", -1]["external_executor_id"]
    stack.table.update_item(
        Key={"submission_id": id},
        UpdateExpression="SET attempts = :ends, attempt = :now",
        ExpressionAttributeValues={":ends": ["CannotPullContainerError: <b>no</b> such image"], ":now": 2},
    )
    page.goto(f"{url}/dags/long/runs/{run}/tasks/runs/plugin/ecs-bridge-task")
    tab = page.frame_locator("iframe")
    cells = tab.locator("article table tbody tr")
    cells.first.wait_for()
    assert [row.locator("th, td").all_inner_texts() for row in cells.all()] == [
        ["1", "CannotPullContainerError: <b>no</b> such image"],
        ["2", "running"],
    ]


def test_who_is_not_signed_in_gets_no_data_and_a_viewer_that_of_dags_alone(url):
    for path in ("overview", "task-instance?dag_id=long&run_id=r&task_id=runs"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/ecs-bridge/api/{path}", timeout=PATIENCE)
        assert refused.value.code == 401
        assert json.load(refused.value) == {"detail": "Not authenticated"}
    assert "page-fails" in json.dumps(overview(url, "op"))
    assert "page-fails" not in json.dumps(overview(url, "viewer"))
