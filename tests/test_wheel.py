"""What `pip install .` gives: a wheel that works outside the repository, with the embedded model in it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", "interp", "assets")
SCRIPT = """
import sys
import interp
print([name for name in ("sae_lens", "transformer_lens", "datasets", "wandb", "gradio", "sklearn", "scipy.stats") if name in sys.modules])
from interp.presets import ASSETS
vlm = interp.load("emoji-llava", device="cpu")
trace = vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image.")
print(interp.__file__, trace.answer, interp.logit_lens(trace).to_html("lens.html"))
print(interp.load_sae("emoji-llava").labels.about)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    stored = "--config-settings=--build-option=--compression=stored"  # weights take seconds to compress, and get no smaller
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", stored, "--wheel-dir", "wheels", ".", cwd=folder)
    (built,) = (folder / "wheels").glob("*.whl")
    return built


def run(*arguments, cwd, **environment):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_wheel_carries_everything_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    listing = subprocess.run(["git", "ls-files", "interp", "assets"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    tracked = listing.stdout.split()
    wanted = {name if name.startswith("interp/") else f"interp/{name}" for name in tracked}
    pictures_of_the_readme = {name for name in wanted if name.startswith("interp/assets/") and name.count("/") == 2}
    assert held >= wanted - pictures_of_the_readme
    assert not {name for name in held if name.startswith(("tests/", "docs/"))}
    assert wheel.stat().st_size < 150e6  # most of it is the decoder of smol-llava


def test_an_installed_wheel_loads_the_embedded_model_and_reads_a_picture(wheel, tmp_path):
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", "installed", wheel, cwd=tmp_path)
    out = run("-c", SCRIPT, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed"), HF_HUB_OFFLINE="1")
    imported, _, out = out.partition("\n")
    assert imported == "[]"  # of what takes long to import and is not needed before it is asked for
    assert str(tmp_path / "installed" / "interp") in out
    assert "a dog and a pizza" in out
    assert "Names: " in out
    assert (tmp_path / "lens.html").stat().st_size > 10_000
