"""The Python side of the concepts view: its component and its standalone page."""

from __future__ import annotations

import pytest

from interp.errors import InterpError
from interp.ui.components.concepts_view import ConceptsView
from interp.web.standalone import standalone_html
from tests.ui.test_lens_view import unpack
from tests.web.concepts_payload import payload, shift


def test_the_standalone_file_carries_the_payload_and_asks_for_nothing():
    made = payload(shift=shift())
    page = standalone_html(made)
    assert unpack(page) == made
    assert "<title>Concepts: emoji-llava</title>" in page
    assert "default-src 'none'" in page


def test_the_component_takes_its_own_payload_or_nothing():
    view = ConceptsView()
    assert view.postprocess(None) is None
    assert view.postprocess(payload())["schema"] == payload()["schema"]
    with pytest.raises(InterpError, match="The concepts view reads"):
        view.postprocess({"schema": "llava-microscope/lens-view/2"})
