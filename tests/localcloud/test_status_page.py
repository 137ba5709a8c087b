"""The status page, in a real browser: what serves, what does not, and what was asked to go wrong."""

from collections.abc import Iterator

import httpx
import pytest
from clouds import Cloud, pinned
from google.api_core import exceptions
from playwright.sync_api import Page, expect, sync_playwright

NASTY = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """A page of a browser without plug-ins and proxies."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"])
        try:
            yield browser.new_page()
        finally:
            browser.close()


def test_without_services_it_says_so(cloud: Cloud, page: Page) -> None:
    page.goto(f"http://{cloud.admin}/")
    expect(page.get_by_text("No service yet. Deploy one, and it appears here.")).to_be_visible()


def test_it_shows_splits_revisions_requests_and_faults_and_follows_by_itself(cloud: Cloud, page: Page) -> None:
    page.goto(f"http://{cloud.admin}/")
    cloud.keep_secret("password", b"hunter2")
    first = cloud.create("shown", revision="shown-one", env={"PASSWORD": "hunter2"})
    cloud.update(cloud.named("shown", revision="shown-two", traffic=[pinned("shown-one", 90), pinned("shown-two", 10)]))
    assert httpx.get(f"{first.uri}/seen?q={NASTY}", trust_env=False).status_code == 200
    assert httpx.get(f"{first.uri}/status?code=503&q={NASTY}", trust_env=False).status_code == 503
    cloud.fault("delay", seconds=1, method="Revisions/*")
    article = page.get_by_role("article")
    expect(article.get_by_role("heading")).to_have_text("shown")  # nobody reloaded the page
    expect(article).to_contain_text("90 %")
    expect(article).to_contain_text("ready shown-two")
    expect(page.get_by_role("region", name="Not as usual")).to_contain_text("Fault delay")
    expect(page.get_by_role("table")).to_contain_text("/seen")
    expect(page.get_by_role("region", name="Failing")).to_contain_text(f"503 GET {first.uri}/status?code=503")
    assert "taken" not in page.title()
    told = cloud.ask("GET", "/state?q=shown")["services"][0]
    assert [(each["revision"], each["percent"]) for each in told["served"]] == [("shown-one", 90), ("shown-two", 10)]
    assert "hunter2" not in page.content() + cloud.request("GET", "/state").text
    cloud.ask("DELETE", "/faults")


def test_behaviour_that_was_switched_is_told_value_by_value(cloud: Cloud, page: Page) -> None:
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_reads": 60}, "log_delay_s": 0.5})
    assert cloud.ask("GET", "/state")["behaviour"] == {"quotas.run_reads": 60, "log_delay_s": 0.5}
    page.goto(f"http://{cloud.admin}/")
    expect(page.get_by_role("region", name="Not as usual")).to_contain_text("Behaviour quotas.run_reads 60")
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_reads": None}, "log_delay_s": 0})
    assert cloud.ask("GET", "/state")["behaviour"] == {}


def test_what_somebody_wrote_is_shown_as_text_and_the_failure_in_full(cloud: Cloud, page: Page) -> None:
    with pytest.raises(exceptions.GoogleAPICallError):
        cloud.create("broken", template={"image": f"{cloud.image}-{'missing'}"})
    cloud.ask("POST", "/denials", {"permission": NASTY, "member": "nobody@example.com"})
    cloud.fault("error", code="INTERNAL", resource="none", message=f"fault {NASTY}")
    page.goto(f"http://{cloud.admin}/?q=%3Cb%3Ebroken")
    expect(page.get_by_text("No service's name has “<b>broken” in it.")).to_be_visible()
    for kind in ("Denied", "Fault error"):
        expect(page.get_by_role("listitem").filter(has_text=kind)).to_contain_text(NASTY)
    page.goto(f"http://{cloud.admin}/?q=broken")
    expect(page.get_by_role("article")).to_contain_text("failed")
    expect(page.get_by_role("article")).to_contain_text("Image")
    expect(page.get_by_role("region", name="Failing")).to_contain_text("Service broken: its newest revision failed")
    assert cloud.ask("GET", "/state?q=services")["matching"] == 0  # it is the name that is searched, not the path to it
    assert "taken" not in page.title()
    assert page.locator("img").count() == 0


def test_it_is_usable_without_its_script_and_runs_nobody_elses(cloud: Cloud) -> None:
    answer = httpx.get(f"http://{cloud.admin}/", trust_env=False)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert '<noscript><meta http-equiv="refresh"' in answer.text
    assert "Local cloud" in answer.text
