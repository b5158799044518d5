"""The table of scores and the files they are kept in, against small cases counted by hand, and the formats of multimodal-sae."""

import json

import pytest

from interp import InterpError
from interp.study.scoring.cases import Record
from interp.study.scoring.score_files import as_reference, failures_as_zero, read_records, write_records
from interp.study.scoring.table import table, written

NAME = "model.layers.24_feature"


def record(feature, category, scores, control, undefined="", failed=None):
    defined = [score for score in scores if score is not None]
    score = sum(defined) / len(defined) if defined else None
    details = {
        "iou_scores": scores,
        "avg_iou": score,
        "k": len(scores),
        "activated_pct": 0.1,
        "defined": {"random pictures": 0.5},
    }
    figures = {"iou": {"score": score, "random pictures": control}}
    return Record(f"{NAME}{feature}", f"label {feature}", category, figures, undefined, failed or {}, details)


RECORDS = [
    record(1, "object", [0.5, 0.7], 0.1),
    record(2, "object", [0.2, None], 0.1, failed={"not found": 1}),
    record(3, "scene", [None, None], None, "not found", {"not found": 2}),
    Record(f"{NAME}4", "Unable to produce descriptions", "", {}, "unable"),
    record(9, "color", [0.0], None),
]


def test_a_row_for_every_category_in_the_order_of_the_paper_and_for_all():
    rows = table(RECORDS)
    assert [row["category"] for row in rows] == ["scene", "object", "color", "", "total"]
    scene, thing, color, none, total = rows
    assert (thing["features"], thing["mean"], thing["controls"]) == (2, pytest.approx(0.4), {"random pictures": pytest.approx(0.1)})
    assert (scene["features"], scene["mean"], scene["undefined"]) == (0, None, {"not found": 1})
    assert (none["features"], none["undefined"]) == (0, {"unable": 1})
    assert (color["mean"], color["controls"]) == (0.0, {"random pictures": None}), "an IoU of 0 is defined"
    assert (total["features"], total["mean"]) == (3, pytest.approx((0.6 + 0.2 + 0) / 3)), "of means of what is defined, without failures"
    assert total["undefined"] == {"not found": 1, "unable": 1}
    assert total["failed"] == {"not found": 3}
    assert sum(row["features"] for row in rows[:-1]) == total["features"]


def test_the_order_of_features_does_not_matter():
    assert table(RECORDS) == table(RECORDS[::-1])


def test_nothing_that_has_a_score_is_a_table_too():
    (row, total) = table([Record(f"{NAME}4", "", "object", {}, "no label")])
    assert (row["category"], row["features"], row["mean"], row["undefined"]) == ("object", 0, None, {"no label": 1})
    assert total["undefined"] == {"no label": 1}
    assert "1 no label" in written([row, total])


def test_the_table_reads_well():
    lines = written(table(RECORDS)).splitlines()
    assert lines[0].split() == ["IoU", "features", "mean", "random", "pictures", "undefined", "failed", "pictures"]
    assert lines[2].split() == ["object", "2", "0.400", "0.100", "-", "1", "not", "found"]
    assert lines[-1].split()[:3] == ["total", "3", "0.267"]


def test_records_survive_a_file(tmp_path):
    write_records(tmp_path / "iou.json", RECORDS)
    assert read_records(tmp_path / "iou.json") == RECORDS
    first = json.loads((tmp_path / "iou.json").read_text())[1]
    assert list(first)[:6] == ["feature", "iou_scores", "avg_iou", "k", "activated_pct", "defined"]
    assert first["iou_scores"] == [0.2, None], "undefined is null, neither 0 nor -1"


REFERENCE = [
    {"feature": f"{NAME}1", "iou_scores": [0.5, 0.7], "avg_iou": 0.6, "k": 2, "activated_pct": 0.1, "label": "label 1"},
    {"feature": f"{NAME}2", "iou_scores": [0.2, -1], "avg_iou": 0.1, "k": 2, "activated_pct": 0.1, "label": "label 2"},
    {"feature": f"{NAME}3", "iou_scores": [-1, -1], "avg_iou": 0.0, "k": 2, "activated_pct": 0.1, "label": "label 3"},
    {"feature": f"{NAME}4", "iou_scores": [], "avg_iou": -1, "k": -1, "activated_pct": -1, "label": "Unable to produce descriptions"},
    {"feature": f"{NAME}9", "iou_scores": [0.0], "avg_iou": 0.0, "k": 1, "activated_pct": 0.1, "label": "label 9"},
]


def test_lists_are_written_as_multimodal_sae_does_if_asked_for():
    assert as_reference(RECORDS, "iou") == REFERENCE
    clip = Record(f"{NAME}1", "dog", "", {"clip": {"score": 21.5}}, details={"clip_scores": [20.0, 23.0], "avg_score": 21.5, "k": 2})
    assert as_reference([clip], "clip") == [{"feature": f"{NAME}1", "clip_scores": [20.0, 23.0], "avg_score": 21.5, "k": 2, "label": "dog"}]


def test_failures_count_as_zero_only_if_asked_for():
    """The reference adds failures to the mean as 0, and cannot tell them from a mask that is elsewhere."""
    rows = table([failures_as_zero(one) for one in RECORDS])
    total = rows[-1]
    assert (total["features"], total["undefined"]) == (4, {"unable": 1})
    assert total["mean"] == pytest.approx((0.6 + 0.1 + 0 + 0) / 4)
    assert total["controls"]["random pictures"] == pytest.approx((0.05 + 0.05 + 0 + 0) / 4)


def test_lists_of_multimodal_sae_are_read_with_their_failures_undefined_again(tmp_path):
    (tmp_path / "iou.json").write_text(json.dumps(REFERENCE))
    found = read_records(tmp_path / "iou.json")
    assert [one.figures.get("iou", {}).get("score") for one in found] == [pytest.approx(0.6), 0.2, None, None, 0.0]
    assert [one.undefined for one in found] == ["", "", "not found", "unable", ""]
    assert table(found)[-1]["mean"] == table(RECORDS)[-1]["mean"]
    clip = [{"feature": f"{NAME}1", "clip_scores": [20.0, 23.0], "avg_score": 21.5, "k": 2, "label": "dog"}]
    (tmp_path / "clip.json").write_text(json.dumps(clip))
    (one,) = read_records(tmp_path / "clip.json")
    assert one.figures == {"clip": {"score": 21.5}}


def test_files_that_are_no_scores_are_refused(tmp_path):
    file = tmp_path / "iou.json"
    for text, message in (
        ("{", "not JSON"),
        ("{}", "must hold a list of scores"),
        ('[{"feature": 1}]', "must hold a list of scores"),
        ('[{"feature": "a"}]', "neither iou_scores nor clip_scores"),
        ('[{"feature": "a", "iou_scores": ["b"]}]', "neither iou_scores nor clip_scores"),
        ('[{"feature": "a", "figures": {}}]', "is damaged"),
    ):
        file.write_text(text)
        with pytest.raises(InterpError, match=message):
            read_records(file)
    with pytest.raises(InterpError, match="cannot be read"):
        read_records(tmp_path / "nowhere.json")
