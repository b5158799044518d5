"""How answers of explaining and refining models are read: a table of what they write."""

import pytest

from interp.study.answers import CLASSES, UNABLE, Refined, explanation, refined
from interp.study.client import MalformedError


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("[EXPLANATION]: red flowers", "red flowers"),
        ("[EXPLANATION] red flowers", "red flowers"),
        ("[explanation]:red flowers\n", "red flowers"),
        ("EXPLANATION: red flowers", "red flowers"),
        ("**[EXPLANATION]:** red flowers", "red flowers"),
        ("**[EXPLANATION]**: *red flowers*", "red flowers"),
        ("`[EXPLANATION]: red flowers`", "red flowers"),
        ("- [EXPLANATION]: red flowers", "red flowers"),
        ("[EXPLANATION]:\nred flowers", "red flowers"),
        ("```\n[EXPLANATION]: red flowers\n```", "red flowers"),
        ("```text\n[EXPLANATION]: red flowers\n```\nI hope this helps.", "red flowers"),
        ("Each picture shows a garden.\n[EXPLANATION]: red flowers", "red flowers"),
        ("[EXPLANATION]: red flowers,\n  often   roses\n\nAll pictures have them.", "red flowers, often roses"),
        ("[EXPLANATION]: a first try\n[EXPLANATION]: red flowers", "red flowers"),
        ("[EXPLANATION]: red flowers\n[CONFIDENCE]: high", "red flowers"),
        ("<think>Maybe [EXPLANATION]: dogs?</think>\n[EXPLANATION]: red flowers", "red flowers"),
        ("[EXPLANATION]: rouge: « fleurs » <b>", "rouge: « fleurs » <b>"),
        ("[EXPLANATION]: I beams of steel", "I beams of steel"),
        ("Unable to produce descriptions", UNABLE),
        ("Unable to produce descriptions.", UNABLE),
        ("unable to produce any description", UNABLE),
        ("[EXPLANATION]: Unable to produce descriptions.", UNABLE),
        ("The parts differ.\n\n**Unable to produce descriptions**", UNABLE),
        ("[EXPLANATION]: red flowers\n\nIf they had nothing in common: Unable to produce descriptions", "red flowers"),
    ],
)
def test_an_explanation_is_found(answer, read):
    assert explanation(answer) == read


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "it is empty"),
        (" \n\t", "it is empty"),
        ("<think>Let me see", "it has no .EXPLANATION.: <think>Let me see"),
        ("<think>dogs</think>", "it is empty"),
        ("Red flowers.", "it has no .EXPLANATION.: Red flowers."),
        ("The explanation is red flowers", "it has no .EXPLANATION."),
        ("[EXPLANATION]:", "nothing follows its .EXPLANATION."),
        ("[EXPLANATION]: **", "nothing follows"),
        ("[EXPLANATION]: your description", "repeats the form"),
        ("[EXPLANATION]: <description>", "repeats the form"),
        ("[EXPLANATION]: …", "repeats the form"),
        ("I'm sorry, but I can't help with that.", "it is a refusal"),
        ("I cannot describe people in pictures.", "it is a refusal"),
        ("As an AI model, I have no eyes.", "it is a refusal"),
        ("[EXPLANATION]: I\u2019m sorry, I can\u2019t assist with this.", "it is a refusal"),
    ],
)
def test_an_answer_without_an_explanation_is_a_failure_with_its_reason(answer, why):
    with pytest.raises(MalformedError, match=why):
        explanation(answer)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("[ANSWER] red flower\n[CLASS] object", Refined("red flower", "object")),
        ("[ANSWER]: Red flower.\n[CLASS]: Object.", Refined("Red flower", "object")),
        ('**[ANSWER]** "red flower"\n**[CLASS]** colours', Refined("red flower", "color")),
        ("ANSWER: red flower\nCLASS: color", Refined("red flower", "color")),
        ("[ANSWER] red flower [CLASS] texture", Refined("red flower", "texture")),
        ("[CLASS] part\n[ANSWER] wheel", Refined("wheel", "part")),
        ("[ANSWER] red flower", Refined("red flower", None)),
        ("[ANSWER] red flower\n[CLASS] plant", Refined("red flower", None)),
        ("[ANSWER] red flower\n[CLASS]", Refined("red flower", None)),
        ("[ANSWER] 🦊", Refined("🦊", None)),
    ],
)
def test_a_label_and_its_class_are_found(answer, read):
    assert refined(answer) == read


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_can_be_named(kind):
    assert refined(f"[ANSWER] it\n[CLASS] {kind}").kind == kind


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "it is empty"),
        ("red flower", "it has no .ANSWER."),
        ("[ANSWER]\n[CLASS] object", "nothing follows its .ANSWER."),
        ('[ANSWER] "."', "the name in it is empty"),
        ("[ANSWER] a flower that stands in a garden and is of a red kind", "more than 8 words"),
        ("[ANSWER] the name\n[CLASS] object", "repeats the form"),
        ("Sorry, there is nothing to name.", "it is a refusal"),
    ],
)
def test_an_answer_without_a_label_is_a_failure_with_its_reason(answer, why):
    with pytest.raises(MalformedError, match=why):
        refined(answer)
