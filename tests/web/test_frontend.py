"""The browser code by its own tools: `node --test`, and with what `npm ci` installs, Biome and the TypeScript compiler.

The app needs none of them. Without them these tests are skipped, but on CI that is a failure, and there `npm ci` is run for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ON_CI = os.environ.get("CI", "").lower() == "true"


def missing(reason):
    if ON_CI:
        pytest.fail(f"{reason} On CI the browser code must be checked.")
    pytest.skip(reason)


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture
def node():
    return shutil.which("node") or missing("No node on this machine (apt-get install nodejs npm).")


@pytest.fixture
def npm(node):
    """npm, with the packages of package-lock.json installed."""
    found = shutil.which("npm") or missing("No npm on this machine (apt-get install npm).")
    if not (ROOT / "node_modules" / ".bin" / "tsc").exists():
        if not ON_CI:
            pytest.skip("Biome and the TypeScript compiler are not installed (npm ci).")
        run(found, "ci", "--no-audit", "--no-fund")
    return found


def test_pure_functions_of_the_views(node):
    assert "# fail 0" in run(node, "--test", "--test-reporter=tap", *map(str, sorted(ROOT.glob("tests/js/*.test.mjs"))))


def test_format_lint_and_types(npm):
    run(npm, "run", "check")


def test_the_lock_file_names_no_registry():
    assert "resolved" not in (ROOT / "package-lock.json").read_text()
