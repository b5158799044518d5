"""One opened view, as the tests of all views handle it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


class Opened:
    """A view on a page, by its `KIND`, and what it shows."""

    KIND: str

    def __init__(self, page):
        self.page = page
        self.root = page.locator(f".{self.KIND}").first

    def set(self, made):
        self.made = made
        self.page.evaluate("([kind, made]) => document.querySelector(kind).__view.set(made)", [f".{self.KIND}", made])
        return self

    def served(self, server, made, **answers):
        """Show a payload, with these answers in the page for those of a server. Waits until it is drawn."""
        self.page.evaluate(server, answers)
        Opened.set(self, made)
        self.page.wait_for_selector(f".{self.KIND}[data-ready]")
        return self

    def part(self, name):
        return self.root.locator(f"[data-part={name}]")

    def text(self, name):
        return " ".join(self.part(name).inner_text().split())

    def says(self, name, text):
        self.part(name).filter(has_text=text).wait_for(state="attached")

    def state(self, name):
        return self.root.evaluate("(root, [kind, name]) => root[`__${kind}`][name]", [self.KIND, name])

    def settle(self):
        """Wait until the frame after the next is painted: a view paints at most once per frame."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def asked(self):
        """What was asked of the answers in the page."""
        return self.page.evaluate("window.said")

    def pixels(self, part="base"):
        """A canvas, or the first one in a part, as [height, width, 3]."""
        url = self.part(part).evaluate("(part) => (part.querySelector('canvas') ?? part).toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)

    def places(self, grid=0, fx=0.5, fy=0.5):
        """Where in the stage each patch is, in CSS pixels: its box in the original, scaled to the canvas."""
        boxes = np.frombuffer(base64.b64decode(self.made["grids"][grid]["boxes"]), "<f4").reshape(-1, 4)
        size, image = self.part("base").bounding_box(), self.made["image"]
        scale = size["width"] / image["width"], size["height"] / image["height"]
        return [
            {"x": float(left + (right - left) * fx) * scale[0], "y": float(top + (bottom - top) * fy) * scale[1]}
            for left, top, right, bottom in boxes
        ]

    def at(self, index, grid=0, fx=0.5, fy=0.5):
        return self.places(grid, fx, fy)[index]

    def hover(self, index, grid=0):
        self.part("stage").hover(position=self.at(index, grid))
        self.settle()

    def click(self, index, grid=0):
        self.part("stage").click(position=self.at(index, grid))
        self.settle()
