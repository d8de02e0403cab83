"""The dashboard in a real browser, after a real study; the screenshots stay for people."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from real_parts import submit, tickets, until, working

from studies.api import Api

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / "test-screenshots"
README = Path(__file__).parents[2] / "README.md"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
LOAD_MS = 30_000


@pytest.fixture
def study(real_server: tuple[str, str], tmp_path: Path) -> Iterator[tuple[Api, str]]:
    """A finished study of two trials, on a server that still runs."""
    with Api(*real_server) as client, working(*real_server, tmp_path) as worker:
        study_id = submit(
            client,
            tickets(tmp_path),
            search_space={"learning_rate": {"type": "float", "low": 1e-4, "high": 3e-3}},
            enqueue=[{"learning_rate": 3e-3}, {"learning_rate": 1e-4}],
            training={"epochs": 6, "max_length": 16, "batch_size": 8},
            pruner={"name": "none"},
            budget={"n_trials": 2},
        )
        until(lambda: client.study(study_id).finished_at, lambda: worker.log)
        yield client, study_id


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser.new_page(viewport={"width": 1400, "height": 1600})
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install chromium")
def test_matrices_and_learning_curves_stand_on_the_study_page_and_on_each_trials_page(
    study: tuple[Api, str], page: Page
) -> None:
    client, study_id = study
    SCREENSHOTS.mkdir(exist_ok=True)
    best = client.study(study_id).best
    assert best is not None
    page.set_default_timeout(LOAD_MS)
    page.goto(client.login_link())
    page.get_by_text(f"tickets [{study_id}]").first.click()

    page.get_by_text("Intermediate values").wait_for()  # the learning curves
    heatmap = page.get_by_text(f"Best trial {best.number}: confusion matrix")
    heatmap.first.wait_for()
    page.screenshot(path=SCREENSHOTS / "study.png", full_page=True)
    study_url = page.url.rstrip("/")

    for number in range(2):
        page.goto(f"{study_url}/trials?numbers={number}")
        page.get_by_role("heading", name=re.compile(f"Trial {number}: macro_f1")).wait_for()
        image = page.locator("img[src*='confusion-matrix']")
        image.wait_for()
        assert image.evaluate("image => image.complete && image.naturalWidth > 100")
        page.screenshot(path=SCREENSHOTS / f"trial-{number}.png", full_page=True)
        rows = page.locator("table", has_text="true ↓ predicted →").locator("tbody tr")
        shown = [re.split(r"\s+", row.strip())[1:-1] for row in rows.all_inner_texts()]
        matrix = client.confusion(study_id, number).matrix
        assert [[0 if cell == "·" else int(cell) for cell in row] for row in shown] == matrix

    page.goto(f"{study_url}/note")
    page.get_by_role("heading", name=re.compile(f"trial {best.number}")).wait_for()
    page.screenshot(path=SCREENSHOTS / "note.png", full_page=True)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command on this machine")
def test_the_readmes_queries_read_results_scores_and_the_matrix(
    study: tuple[Api, str], tmp_path: Path
) -> None:
    client, study_id = study
    shown = []
    for command in re.findall(r"^sqlite3 [^\"]+\"[^\"]+\"", README.read_text(), re.M):
        here = command.replace("demo-data", str(tmp_path / "home"))
        here = here.replace("helpdesk", "tickets")
        done = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)
        shown.append(done.stdout)

    results, scores, mistakes = shown
    assert results.count("accuracy") == 2
    for scored in client.trial(study_id, 0).per_class:
        assert re.search(rf"^{scored.label} .* {scored.support} *$", scores, re.M), scores
    answer = client.confusion(study_id, 0)
    wrong = sum(map(sum, answer.matrix)) - sum(answer.matrix[k][k] for k in range(3))
    assert sum(int(line.split()[-1]) for line in mistakes.splitlines()[2:]) == wrong
