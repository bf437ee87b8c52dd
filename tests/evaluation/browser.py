"""A real headless browser that opens a report, is driven by a script, and tells what it found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    *("chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is on the path"
)
# The report in a frame of the width that is asked for; the script sees its document and window.
HARNESS = """<!doctype html><meta charset="utf-8"><pre id="found">nothing</pre>
<iframe id="frame" src="%(address)s" style="width:%(width)spx;height:900px;border:0"></iframe>
<script>
document.getElementById("frame").addEventListener("load", async () => {
  const win = document.getElementById("frame").contentWindow, doc = win.document;
  let found;
  try { found = await (async () => { %(script)s })(); } catch (error) { found = { error: String(error) }; }
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def drive(report: Path, script: str, width: int = 1200, address: str = "") -> Any:
    """What the script returns; it sees `doc` and `win` of the report, opened at `#address`."""
    harness = report.with_name("harness.html")
    values = {"address": html.escape(f"{report.name}#{address}"), "width": width, "script": script}
    harness.write_text(HARNESS % values, "utf-8")
    page = _run(harness, "--window-size=1400,1000", "--dump-dom").stdout
    found = re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)
    assert found, page[:2000]
    said = json.loads(html.unescape(found[1]))
    assert not (isinstance(said, dict) and "error" in said), said
    return said


def screenshot(report: Path, picture: Path, size: tuple[int, int], address: str) -> None:
    """A PNG of the report."""
    _run(report, f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", address=address)


def _run(page: Path, *arguments: str, address: str = "") -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    command += ["--no-sandbox"]  # root and containers have none, and the page is our own
    command += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=5000", *arguments]
    return subprocess.run(
        [*command, f"{page.as_uri()}#{address}"], capture_output=True, text=True, timeout=120, check=True
    )
