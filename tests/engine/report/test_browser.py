"""The report in a real browser: figures drawn, table sorted, crystals shown, nothing blocked or run that should not."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paragenesis.engine.report import write_report

Build = Callable[..., Path]

# A page that holds the report in a frame, clicks about in it, and writes down what it sees.
DRIVER = """<!doctype html><body><iframe src="campaign/report.html" style="width:1200px;height:900px"></iframe><script>
const seen = {};
const wait = (ready) => new Promise((done) => {
  const look = () => (ready() ? done() : setTimeout(look, 50));
  look();
});
document.querySelector("iframe").addEventListener("load", async (event) => {
  const page = event.target.contentDocument;
  page.addEventListener("securitypolicyviolation", (e) => (seen.blocked = e.violatedDirective));
  await wait(() => page.body.dataset.rendered);
  const table = page.getElementById("selected");
  const formulas = () => Array.from(table.tBodies, (b) => b.querySelector("b").textContent);
  const heading = (words) => Array.from(table.querySelectorAll("th button")).filter((b) => b.textContent === words);
  const ink = () => {
    const canvas = page.getElementById("viewer-canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.reduce((sum, x, k) => sum + (k % 4 === 3 && x > 0), 0);
  };
  seen.rendered = page.body.dataset.rendered;
  seen.drawn = page.querySelectorAll(".plot .main-svg:first-child").length;
  seen.points = page.querySelectorAll("#figure-pareto-0-1 .scatterlayer path.point").length;
  seen.pwned = page.body.dataset.pwned || "";
  heading("crystal")[0].click();
  seen.up = formulas();
  heading("crystal")[0].click();
  seen.down = formulas();
  heading("verified")[1].click();
  seen.values = Array.from(table.tBodies, (b) => b.rows[0].cells[9].dataset.value);
  seen.shown = Array.from(table.tBodies, (body) => {
    body.click();
    const cif = page.getElementById("viewer-cif");
    return [body.dataset.id, page.body.dataset.atoms, page.getElementById("viewer-title").textContent, cif.href];
  });
  seen.ink = ink();
  page.getElementById("viewer-repeat").click();
  seen.moreInk = ink();
  document.body.textContent = JSON.stringify(seen);
  document.body.dataset.done = "yes";
});
</script></body>"""


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium; its tests are skipped where there is none."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium on this machine; install the package chromium to try the report in a browser")
    return found


@pytest.fixture
def drive(chromium: str, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Opens the report of the campaign in the test's folder, clicks about, and returns what was seen."""

    def run() -> dict[str, Any]:
        (tmp_path / "driver.html").write_text(DRIVER)
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-web-security", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000",
            "--dump-dom", (tmp_path / "driver.html").as_uri(),
        ]  # fmt: skip
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        body = re.search(r"<body[^>]*data-done=\"yes\"[^>]*>(.*)</body>", dom, re.DOTALL)
        assert body is not None, f"the page did not finish: {dom[:2000]}"
        seen: dict[str, Any] = json.loads(html.unescape(body[1]))
        return seen

    return run


def test_a_browser_draws_sorts_and_shows(build: Build, drive: Callable[[], dict[str, Any]]) -> None:
    write_report(build())
    seen = drive()
    assert "blocked" not in seen
    assert seen["rendered"] == "14 figures"
    assert seen["drawn"] == 14
    assert seen["points"] > 60
    assert len(seen["up"]) == 12
    assert seen["up"] == sorted(seen["up"], key=str.casefold)
    assert seen["down"] == sorted(seen["down"], key=str.casefold, reverse=True)
    known = [float(v) for v in seen["values"] if v]
    assert known == sorted(known)
    assert len(known) == 10
    assert seen["values"][10:] == ["", ""]  # unknown values stay last
    for _, atoms, title, cif in seen["shown"]:
        # rock salt: 14 + 13 atoms with their images; perovskite: 8 corners, the centre, 6 faces
        assert atoms == ("27" if "(225)" in title else "15")
        assert cif.startswith("data:chemical/x-cif")
    assert len({title for _, _, title, _ in seen["shown"]}) > 3
    assert seen["ink"] > 1000
    assert seen["moreInk"] not in (0, seen["ink"])  # 2 x 2 x 2 cells


def test_hostile_words_do_not_run(build: Build, drive: Callable[[], dict[str, Any]]) -> None:
    attack = (
        "</script><script>document.body.dataset.pwned=1</script><img src=x onerror='document.body.dataset.pwned=1'>"
    )
    write_report(build(meta={"name": attack}, formula=attack, origin=attack, reason=attack))
    seen = drive()
    assert seen["rendered"] == "14 figures"
    assert seen["pwned"] == ""
    assert "blocked" not in seen  # it was never an element, so there was nothing to block
    assert seen["up"][0] == attack
