"""What pyproject.toml cannot say: the wheel carries `assets/` as `interp/assets`, with the embedded model."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["interp", "interp.*"]), "interp.assets"], package_dir={"interp.assets": "assets"})
