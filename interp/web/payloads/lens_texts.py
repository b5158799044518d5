"""What the page says about each lens: what it reads, what it was trained on, how much it reads of a model, and what it cannot show."""

from typing import TypedDict

from ...lens.lens import Method
from ...presets import PRESETS, KnownLens


class LensMethod(TypedDict):
    """One lens of the switch. `about`: what it reads, what it was trained on and how much it reads of this model."""

    key: str
    name: str
    about: str


NAMES: dict[Method, str] = {
    "logit": "Logit lens",
    "tuned": "Tuned lens",
    "token": "Token lens",
    "contextual": "Contextual lens",
    "embedding": "Embedding lens",
}
"""All lenses, in the order of the switch."""
_ABOUT: dict[Method, str] = {
    "logit": "Reads what comes next: the word that the model would say if it stopped at this layer.",
    "tuned": "Reads what comes next: a trained map for each layer foresees the last one, and the model's own head reads it.",
    "token": "Reads what stands here: a trained map for each layer turns the state into the token at its own position.",
    "contextual": "Reads what stands here: the words of a text whose states in the same decoder are most similar, at any layer.",
    "embedding": "Reads what stands here: the words whose input embeddings point most nearly in the same direction.",
}
_WITHOUT_TRAINING = ("logit", "embedding")
WHY_DEFAULT = {
    "next": "Opens about three quarters of the way through: the last layers turn from what a patch shows to which word comes next.",
    "here": "Early layers still hold what entered at a position; late ones turn to which word comes next.",
}
_ALL = (
    "A concept without a single-token word cannot show up at all. Patches exchange information, so a word may appear on the background or belong "
    "to a neighbouring patch. And a readable word need not be used: only an intervention shows what the answer depends on."
)
LIMITS: dict[Method, str] = {
    "logit": (
        "A logit lens asks one narrow question: which word would the model say if it stopped at this layer? A word on a patch is neither what the "
        "patch contains nor what the model thinks of it. In early layers most readings are noise, because those layers do not speak the language "
        f"of the output words; lenses that are trained or that compare with text find more in the same states. {_ALL}"
    ),
    "tuned": (
        "A tuned lens shows what the model is on the way to say. Its maps were trained to foresee the last layer, so a word may be a good guess of "
        f"the map and nothing that the layer holds, and on a patch it is a next word, not a name for the patch. {_ALL}"
    ),
    "token": (
        "A token lens shows which word a trained map makes of a state. The map gives an answer for every state, and where it was trained on text a "
        "patch is unlike anything it has seen: compare how often it is right with how often it is on shuffled pictures. What the map can read, the "
        f"model need not be reading. {_ALL}"
    ),
    "contextual": (
        "A contextual lens shows what a state resembles. It finds only what its text contains, and two states may be similar in topic, grammar or "
        "position rather than in the word that is shown: read the contexts. Small differences between similarities mean little. "
        f"{_ALL}"
    ),
    "embedding": (
        "An embedding lens compares states with the words as they enter the model. Only the first layers are near that space; later on similarities "
        "are small, some words are near everything, and small differences mean little. "
        f"{_ALL}"
    ),
}


def known_lens(method: Method, model: str) -> KnownLens | None:
    """What the model's preset says about a lens."""
    preset = PRESETS.get(model)
    return next((lens for lens in preset.lenses if lens.method == method), None) if preset else None


def lens_method(method: Method, model: str, known: KnownLens | None = None) -> LensMethod:
    """One entry of the switch. `known`: what is known about this lens of the model, by default what its preset says."""
    known = known or known_lens(method, model)
    trained = (
        "Not trained."
        if method in _WITHOUT_TRAINING
        else f"{'Its text' if method == 'contextual' else 'Trained on'}: {known.trained_on.rstrip('.')}."
        if known and known.trained_on
        else ""
    )
    readable = f"Measured on this model: {known.readable.rstrip('.')}." if known and known.readable else "Not measured on this model."
    about = " ".join(filter(None, [_ABOUT[method], trained, readable, known.note if known else ""]))
    return {"key": method, "name": NAMES[method], "about": about}
