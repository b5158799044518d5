"""Presets: checkpoints with a short name. No torch is imported, so reading the table costs nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .validation import flag

_PLACES = (Path(__file__).parent / "assets", Path(__file__).parents[1] / "assets")  # in an installed wheel, and in the repository
ASSETS = next(filter(Path.is_dir, _PLACES), _PLACES[1])
"""The embedded models, their SAEs, examples and emoji."""


@dataclass(frozen=True)
class KnownSae:
    """A sparse autoencoder for a preset's residual stream."""

    name: str
    source: str
    """What `interp.load_sae` takes: a release and id of sae-lens, a hub repository, or a folder."""
    layer: int
    labels: str
    """Where the names of its features come from."""
    note: str = ""
    """What to know before trusting it."""


@dataclass(frozen=True)
class KnownLens:
    """What is known about one lens of a preset. The logit and the embedding lens exist for every model; an entry adds what was measured."""

    method: Literal["logit", "tuned", "token", "contextual", "embedding"]
    source: str
    """What `interp.load_translators` or `interp.load_index` takes: a folder or a hub repository. "" for a lens that needs neither."""
    trained_on: str
    """"" if it was not trained."""
    readable: str
    """How much of this model it reads, measured: one sentence with figures and the shuffled control."""
    note: str = ""
    """What to know before trusting it."""
    layer: int | None = None
    """The layer that it opens at, where it reads best; None for the model's `default_layer`."""


@dataclass(frozen=True)
class KnownAdapter:
    """A fine-tune of a preset, as a LoRA adapter: `interp.load(preset, adapter=name)`."""

    name: str
    source: str
    """A folder or a hub id."""
    about: str
    """One line for the page."""


@dataclass(frozen=True)
class KnownConcepts:
    """A dictionary of concepts of a preset's states."""

    name: str
    source: str
    """A folder that `Concepts.save` wrote."""
    layer: int
    about: str
    """What it was learned on and how well it stands for what is known to be there, measured: with figures and the shuffled control."""


@dataclass(frozen=True)
class Preset:
    """One known checkpoint."""

    name: str
    checkpoint: str
    """Hub id or folder."""
    revision: str | None
    """Commit, tag or branch on the hub; None follows the repository's main branch."""
    licence: str
    n_layers: int
    default_layer: int
    """The layer that its lens opens at: about three quarters deep, unless `default_layer_note` gives a reason for another."""
    memory_4bit_gb: float
    """GB needed on a GPU for lens, SAE and steering with the decoder in 4 bit: weights computed from their shapes, plus a reserve."""
    memory_16bit_gb: float
    """The same with all weights in 16 bit. A CPU computes in 32 bit and needs twice as much."""
    proved: Literal["real weights", "shape"]
    """"real weights" if it was measured on them, "shape" if only tested with random weights in its exact classes."""
    about: str
    """One line for the page."""
    default_layer_note: str = ""
    """Why its lens opens at `default_layer` and what the other layers show, where that was measured. "" for the usual three quarters."""
    gated: bool = False
    """Whether its licence must be accepted on the hub, with an account, before it can be downloaded."""
    requires: tuple[str, ...] = ()
    """Packages that its processor needs in addition to requirements.txt."""
    quantize: Literal["auto", "4bit", "none"] = "auto"
    """Overrides what "auto" means for this checkpoint."""
    saes: tuple[KnownSae, ...] = ()
    """The first is the default."""
    lenses: tuple[KnownLens, ...] = ()
    concepts: tuple[KnownConcepts, ...] = ()
    """The first is the default."""
    opens_with: str = "logit"
    """The lens that the page opens with: the one that reads this model best, if the logit lens reads nothing."""
    adapters: tuple[KnownAdapter, ...] = ()
    """Its fine-tunes that can be named."""

    def memory_gb(self, *, cpu: bool) -> float:
        """GB needed with the default quantisation: 4 bit on a GPU, 32-bit numbers on a CPU."""
        if flag("cpu", cpu):
            return 2 * self.memory_16bit_gb
        return self.memory_16bit_gb if self.quantize == "none" else self.memory_4bit_gb


_RASTERS = "text alone: the words of scenes in the order of their patches, each scene with a question and its answer"
_TEXT_ONLY = "Trained on text with the decoder's base model: it has seen neither pictures nor this fine-tune. Check the explained variance."


def _known(*saes: tuple[str, int, str, str]) -> tuple[KnownSae, ...]:
    return tuple(KnownSae(source, source, layer, labels, note) for source, layer, labels, note in saes)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="emoji-llava",
            checkpoint=str(ASSETS / "emoji-llava"),
            revision=None,
            licence="Apache-2.0",
            n_layers=8,
            default_layer=7,
            default_layer_note=(
                "Opens at the last layer, the best one for objects and background together. Earlier layers name objects as well (88.1 % at layer 0, 98.2 % at "
                "layer 5) but seldom the background (25.5 % at layer 5, 57.2 % at layer 6): there a blue background can read “green” or “orange”."
            ),
            memory_4bit_gb=0.1,
            memory_16bit_gb=0.1,
            proved="real weights",
            about=(
                "Knows 120 emoji and nothing else. It was built to be readable and says nothing about how readable large models are. "
                "For a real language model, choose another one, such as smol-llava, which ships here too."
            ),
            quantize="none",
            saes=(KnownSae("emoji-llava-sae", str(ASSETS / "emoji-llava-sae"), 3, "what they fire on in unseen scenes"),),
            concepts=(
                KnownConcepts(
                    "emoji-llava-concepts",
                    str(ASSETS / "emoji-llava-concepts"),
                    3,
                    "64 concepts by k-means from one patch of each of 2,000 scenes. On unseen scenes, 38.6 % of patches show what most patches of their concept show "
                    "(19.3 % if what they show is shuffled): 56.0 % of those on objects (23.4 %), and 34.4 % of those on the background (29.0 %), whose colour "
                    "this layer hardly tells.",
                ),
            ),
            lenses=(
                KnownLens(
                    "logit",
                    "",
                    "",
                    "at layer 7, on unseen scenes, the top word is the object's noun on 96.5 % of its patches and the colour of the background on 78.2 %",
                ),
                KnownLens(
                    "tuned",
                    str(ASSETS / "emoji-llava-lenses" / "tuned"),
                    _RASTERS,
                    "at layer 6, on unseen scenes, the top word is the object's noun on 97.9 % of its patches and the colour of the background on "
                    "61.3 %; with the nouns of another picture 0.3 %",
                    "The last layer has no map: it is the model's own prediction.",
                    layer=6,
                ),
                KnownLens(
                    "token",
                    str(ASSETS / "emoji-llava-lenses" / "token"),
                    _RASTERS,
                    "at layer 7, on unseen scenes, the top word is the object's noun on 98.5 % of its patches and the colour of the background on "
                    "68.5 %; with the nouns of another picture 0.3 %",
                    layer=7,
                ),
                KnownLens(
                    "embedding",
                    "",
                    "",
                    "at layer 2, on unseen scenes, the top word is the object's noun on 98.7 % of its patches and the colour of the background on "
                    "24.6 %; with the nouns of another picture 0.4 %",
                    layer=2,
                ),
                KnownLens(
                    "contextual",
                    str(ASSETS / "emoji-llava-lenses" / "contextual"),
                    "1 860 states of 155 words in questions and answers about emoji, text only",
                    "at layer 6, on unseen scenes, the top word is the object's noun on 97.3 % of its patches and the colour of the background on "
                    "32.0 %; with the nouns of another picture 0.4 %",
                    layer=6,
                ),
            ),
            adapters=(
                KnownAdapter(
                    "emoji-llava-adapter",
                    str(ASSETS / "emoji-llava-adapter"),
                    "A small fine-tune of emoji-llava, to compare with it: its descriptions give colour and places before names, and a dog is called an object.",
                ),
            ),
        ),
        Preset(
            name="smol-llava",
            checkpoint=str(ASSETS / "smol-llava"),
            revision=None,
            licence="Apache-2.0",
            n_layers=30,
            default_layer=21,
            memory_4bit_gb=0.6,
            memory_16bit_gb=0.6,
            proved="real weights",
            about=(
                "A real language model (SmolLM2 135M, unchanged) behind a small eye that was trained for it: good for seeing what each lens reads in "
                "a decoder that nobody trained to be readable. It names 95 % of the objects in unseen scenes of emoji and counts them; of drawings in a style "
                "that it never saw, it names half."
            ),
            lenses=(
                KnownLens(
                    "logit",
                    "",
                    "",
                    "on unseen scenes, the top word is never the object's noun on its patches before the last layer, and there on 11.5 %",
                ),
                KnownLens(
                    "tuned",
                    str(ASSETS / "smol-llava-lenses" / "tuned"),
                    "example sentences of WordNet and rasters of their words, no picture",
                    "on text that it was not trained on, its prediction is 4.1 nats from the model's own at layer 18, where the logit lens's is 23.1; of patches it "
                    "reads as little as the logit lens, the object's noun on at most 3.2 % before the last layer",
                    "Read prompts and answers with it.",
                ),
                KnownLens(
                    "contextual",
                    str(ASSETS / "smol-llava-lenses" / "contextual"),
                    "sentences about the nouns and colours it was taught, and example sentences of WordNet without them",
                    "on unseen scenes, the nearest context's word is the object's noun on 86.3 % of its patches at layer 0, still on 76.5 % at layer 18, and on few "
                    "after layer 21; with the nouns of another picture at most 0.5 %. It reads few backgrounds: 2.7 % at layer 0",
                    layer=0,
                ),
                KnownLens(
                    "embedding",
                    "",
                    "",
                    "at the input, on unseen scenes, the top word is the object's noun on 61.4 % of its patches; behind the first block on none",
                    layer=-1,
                ),
            ),
            opens_with="contextual",
            quantize="none",
            saes=(KnownSae("smol-llava-sae", str(ASSETS / "smol-llava-sae"), 3, "what they fire on in unseen scenes"),),
        ),
        Preset(
            name="llava-interleave-0.5b",
            checkpoint="llava-hf/llava-interleave-qwen-0.5b-hf",
            revision=None,
            licence="Tongyi Qianwen research",
            n_layers=24,
            default_layer=17,
            memory_4bit_gb=2.0,
            memory_16bit_gb=2.5,
            proved="shape",
            about="A small real LLaVA (Qwen 0.5B and SigLIP) that runs on a CPU. Downloads about 1.7 GB once. No SAE is published for it.",
        ),
        Preset(
            name="llava-1.5-7b",
            checkpoint="llava-hf/llava-1.5-7b-hf",
            revision=None,
            licence="Llama 2 Community",
            n_layers=32,
            default_layer=23,
            memory_4bit_gb=6.5,
            memory_16bit_gb=16.0,
            proved="shape",
            about=(
                "LLaVA 1.5 (Vicuna 7B and CLIP): 24 x 24 patches of the centre square. No SAE is published for it: "
                "steer it with contrast vectors (interp.contrast_vector)."
            ),
        ),
        Preset(
            name="llava-next-llama3-8b",
            checkpoint="llava-hf/llama3-llava-next-8b-hf",
            revision=None,
            licence="Llama 3 Community",
            n_layers=32,
            default_layer=23,
            memory_4bit_gb=11.0,
            memory_16bit_gb=21.0,
            proved="shape",
            about="LLaVA-NeXT (Llama 3 8B and CLIP): the whole picture and up to four tiles of it. An SAE was trained on this model.",
            saes=_known(
                (
                    "lmms-lab/llama3-llava-next-8b-hf-sae-131k",
                    24,
                    "LMMs-Lab's explanations",
                    "Trained on this model and its training data.",
                ),
                ("llama-3-8b-it-res-jh/blocks.25.hook_resid_post", 25, "Neuronpedia", _TEXT_ONLY),
            ),
        ),
        Preset(
            name="llava-gemma-2b",
            checkpoint="Intel/llava-gemma-2b",
            revision=None,
            licence="Gemma",
            n_layers=18,
            default_layer=13,
            memory_4bit_gb=4.5,
            memory_16bit_gb=7.5,
            proved="shape",
            about="LLaVA on Gemma 2B with CLIP. SAEs of text-only Gemma 2B fit its width and come with names.",
            saes=_known(
                ("gemma-2b-res-jb/blocks.12.hook_resid_post", 12, "Neuronpedia", _TEXT_ONLY),
                ("gemma-2b-res-jb/blocks.6.hook_resid_post", 6, "Neuronpedia", _TEXT_ONLY),
                ("gemma-2b-it-res-jb/blocks.12.hook_resid_post", 12, "Neuronpedia", _TEXT_ONLY),
            ),
        ),
        Preset(
            name="idefics2-8b",
            checkpoint="HuggingFaceM4/idefics2-8b",
            revision=None,
            licence="Apache-2.0",
            n_layers=32,
            default_layer=23,
            memory_4bit_gb=8.0,
            memory_16bit_gb=19.5,
            proved="shape",
            about="Idefics2 (Mistral 7B and SigLIP). A perceiver mixes the patches, so image tokens have no position in the picture.",
        ),
        Preset(
            name="qwen2-vl-7b",
            checkpoint="Qwen/Qwen2-VL-7B-Instruct",
            revision=None,
            licence="Apache-2.0",
            n_layers=28,
            default_layer=20,
            memory_4bit_gb=9.5,
            memory_16bit_gb=19.5,
            proved="shape",
            about="Qwen2-VL: the number of patches depends on the size of the picture; its proportions are kept.",
            requires=("torchvision",),
        ),
        Preset(
            name="qwen3-vl-4b",
            checkpoint="Qwen/Qwen3-VL-4B-Instruct",
            revision=None,
            licence="Apache-2.0",
            n_layers=36,
            default_layer=26,
            memory_4bit_gb=7.0,
            memory_16bit_gb=11.5,
            proved="shape",
            about="Qwen3-VL 4B: image features enter with the tokens, and are added again after each of the first three blocks.",
            requires=("torchvision",),
        ),
        Preset(
            name="qwen3.5-4b",
            checkpoint="Qwen/Qwen3.5-4B",
            revision=None,
            licence="Apache-2.0",
            n_layers=32,
            default_layer=23,
            memory_4bit_gb=7.0,
            memory_16bit_gb=11.5,
            proved="shape",
            about="Qwen3.5 4B: three in four blocks are linear attention. The number of patches depends on the size of the picture.",
            requires=("torchvision",),
        ),
        Preset(
            name="molmo2-8b",
            checkpoint="allenai/Molmo2-8B",
            revision=None,
            licence="Apache-2.0",
            n_layers=36,
            default_layer=26,
            memory_4bit_gb=10.0,
            memory_16bit_gb=21.0,
            proved="shape",
            about="Molmo 2 (Qwen3 8B and SigLIP 2): the whole picture and a finer view of it.",
            requires=("torchvision",),
        ),
        Preset(
            name="smolvlm-256m",
            checkpoint="HuggingFaceTB/SmolVLM-256M-Instruct",
            revision=None,
            licence="Apache-2.0",
            n_layers=30,
            default_layer=21,
            memory_4bit_gb=1.5,
            memory_16bit_gb=1.7,
            proved="shape",
            about="SmolVLM 256M: the smallest real model, fit for a CPU. The whole picture and tiles of it.",
        ),
        Preset(
            name="gemma-3-4b",
            checkpoint="google/gemma-3-4b-it",
            revision=None,
            licence="Gemma",
            n_layers=34,
            default_layer=25,
            memory_4bit_gb=7.0,
            memory_16bit_gb=11.0,
            proved="shape",
            about="Gemma 3 4B: 16 x 16 patches of the whole picture. Gemma Scope 2 has SAEs for this model, trained on text.",
            gated=True,
            saes=_known(
                *(
                    (
                        f"gemma-scope-2-4b-it-res/layer_{layer}_width_16k_l0_medium",
                        layer,
                        "Neuronpedia",
                        "Trained on this model, on text only.",
                    )
                    for layer in (17, 9, 22, 29)
                )
            ),
        ),
        Preset(
            name="paligemma2-3b",
            checkpoint="google/paligemma2-3b-mix-448",
            revision=None,
            licence="Gemma",
            n_layers=26,
            default_layer=19,
            memory_4bit_gb=6.5,
            memory_16bit_gb=8.5,
            proved="shape",
            about=(
                "PaliGemma 2 (Gemma 2 2B and SigLIP): 32 x 32 patches. It follows short task prompts, such as "
                '"describe en" or "answer en what is on the left?".'
            ),
            gated=True,
            saes=_known(
                ("gemma-scope-2b-pt-res-canonical/layer_19/width_16k/canonical", 19, "Neuronpedia", _TEXT_ONLY),
                ("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical", 12, "Neuronpedia", _TEXT_ONLY),
            ),
        ),
    )
}
