import re

from interp.emoji_world.lens_text import emoji_text, english_text
from interp.emoji_world.words import WORDS


def test_a_scene_is_a_raster_of_words_with_a_question_and_its_answer():
    text = emoji_text(3)
    assert text == emoji_text(3)
    for passage in text.split("\n\n"):
        raster = re.fullmatch(r"USER: ((?: [\w-]+){64})\n.+ ASSISTANT: .+", passage)
        assert raster
        assert set(raster[1].split()) <= set(WORDS)


def test_english_passages_alternate_with_rasters_of_their_own_words():
    lines = [f"the boat number{i} is on the sea." for i in range(240)]
    passages = english_text("\n".join(lines)).split("\n\n")
    rasters = [passage for passage in passages if passage.startswith(" ")]
    assert (len(passages), len(rasters)) == (33, 13)
    assert {len(raster.split()) for raster in rasters} == {64}
    assert {word for raster in rasters for word in raster.split()} <= {"the", "boat", "sea", "number"}
    assert sorted(line for passage in passages if passage not in rasters for line in passage.split("\n")) == sorted(lines)
