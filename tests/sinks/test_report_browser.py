"""The report in a real browser: the script runs, nothing hostile does, and selecting a moment lights up the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .test_report import HOSTILE, run

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("ONLOOKER_REQUIRE_BROWSER") == "1":
            pytest.fail("ONLOOKER_REQUIRE_BROWSER=1, but there is no Chromium; install it (apt-get install chromium).")
        pytest.skip("needs Chromium")
    return found


def rendered(browser: str, page: Path, profile: Path, fragment: str = "", width: int = 1280) -> str:
    """The document as it stands after its script has run."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},1000", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri() + fragment], capture_output=True, timeout=120, check=True, encoding="utf-8"
    )
    return done.stdout


def test_a_linked_moment_lights_up_everywhere(browser: str, tmp_path: Path) -> None:
    run(tmp_path / "report.html")
    dom = rendered(browser, tmp_path / "report.html", tmp_path / "profile", "#t=7")
    assert re.search(r'<tr data-s="5" data-e="10" class="on">', dom)
    assert re.search(r'<tr data-q="0" data-s="6" data-e="11" class="on">', dom)
    assert re.search(r'<button type="button" data-t="7" class="on">', dom)
    assert re.search(r'id="now-caption"[^>]*>a cat looks into the camera<', dom)
    assert re.search(r'<li><i class="dot q0"></i>a cat', dom)
    assert re.search(r'class="block[^"]* on"', dom) and re.search(r'class="band on"', dom)
    assert 'aria-valuetext="0:07.0, a cat looks into the camera"' in dom
    assert len(re.findall(r'<path class="line"', dom)) == 2


def test_without_a_caption_nothing_is_lit(browser: str, tmp_path: Path) -> None:
    run(tmp_path / "report.html")
    dom = rendered(browser, tmp_path / "report.html", tmp_path / "profile", "#t=17")
    assert re.search(r'id="now-caption" class="none">No caption here<', dom)
    assert not re.search(r'<tr [^>]*class="on">', dom)


def test_hostile_text_is_only_shown(browser: str, tmp_path: Path) -> None:
    run(tmp_path / "report.html", HOSTILE, HOSTILE)
    dom = rendered(browser, tmp_path / "report.html", tmp_path / "profile", "#t=7", width=500)
    assert 'onerror="' not in dom and "<img src=" not in dom
    assert re.search(r'id="now-caption"[^>]*>&lt;/script&gt;&lt;img', dom)
