"""A small index written by hand: what its files hold, in the tests' own words, for tests that need no study."""

import io
import json

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

HOSTILE = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"> & {{ 7 }}'
FEATURES, PICTURES, SAMPLES = 6, 3, 40
DOG, BARE, EVIL, DEAD = 0, 1, 2, 3
"""A feature with everything, one without a label, one with markup for a label, and one that is active nowhere."""
WEIGHTS = "made up"


def write_index(folder, weights=WEIGHTS, name="made-up", features=FEATURES):
    """Write it; `weights` is the digest of its SAE, whose `features` behind the first four are active nowhere. Returns the folder."""
    for sub in ("pictures", "features"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    _pictures(folder)
    _features(folder, features)
    every = {
        DOG: said(
            "dog", "by hand", explanation="The heads of dogs.", category="object", scores={"iou": {"score": 0.8, "random masks": 0.1}}
        ),
        EVIL: said(
            HOSTILE,
            HOSTILE,
            explanation=HOSTILE,
            category=HOSTILE,
            scores={HOSTILE: {"score": None, HOSTILE: 0.5}},
            undefined={HOSTILE: HOSTILE},
        ),
        DEAD: said("hotdog stand", "by hand"),
    }
    texts = packed([json.dumps(each) for each in every.values()], "said")
    save_file({"features": torch.tensor(sorted(every)), **texts}, folder / "said.safetensors")
    about = {
        "schema": "llava-microscope/feature-index/1",
        "name": name,
        "model": {"name": "emoji-llava", "source": "emoji-llava"},
        "sae": {
            "name": "emoji-llava-sae",
            "source": "emoji-llava",
            "picked": None,
            "layer": 3,
            "features": features,
            "weights": weights,
        },
        "features": features,
        "alive": 3,
        "samples": SAMPLES,
        "pool": "mean",
        "prompt": "Describe the image.",
        "pictures": PICTURES,
        "first": DOG,
        "neighbours": 2,
        "words": 2,
    }
    (folder / "index.json").write_text(json.dumps(about))
    return folder


def said(label, source, **more):
    return {"label": label, "source": source, "explanation": "", "category": "", "scores": {}, "undefined": {}, **more}


def packed(texts, name):
    data = [text.encode() for text in texts]
    ends = torch.tensor([len(text) for text in data]).cumsum(0)
    return {name: torch.frombuffer(bytearray(b"".join(data)), dtype=torch.uint8), f"{name}_ends": ends}


def _pictures(folder):
    """Samples 3, 5 and 33: two of 64 by 64 pixels with 2 by 2 patches, one of 96 by 48 with 1 by 2, whose copies have half the size."""
    square = {
        "positions.0": torch.tensor([7, 5, 6, 8]).int(),
        "boxes.0": torch.tensor([[32, 32, 64, 64], [0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64.0]]),
    }
    wide = {"positions.0": torch.tensor([5, 6]).int(), "boxes.0": torch.tensor([[0, 0, 48, 48], [48, 0, 96, 48.0]])}
    for chunk, numbers, sizes, layout in ((0, [3, 5], [[64, 64]] * 2, square), (1, [33], [[96, 48]], wide)):
        copies = torch.frombuffer(bytearray(b"".join(copy(w // 2, h // 2) for w, h in sizes)), dtype=torch.uint8)
        ends = torch.tensor([len(copy(w // 2, h // 2)) for w, h in sizes]).cumsum(0)
        tensors = {
            "numbers": torch.tensor(numbers),
            "sizes": torch.tensor(sizes).int(),
            "layout": torch.zeros(len(numbers)).int(),
            **layout,
        }
        save_file(
            {**tensors, "pictures": copies, "picture_ends": ends},
            folder / f"pictures/{chunk:05}.safetensors",
            {"ids": json.dumps([HOSTILE if n == 5 else f"{n}.png" for n in numbers])},
        )


def copy(width, height):
    picture = Image.new("RGB", (width, height), "navy")
    ImageDraw.Draw(picture).ellipse((0, 0, width // 2, height // 2), "gold")
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True)
    return out.getvalue()


def _features(folder, count):
    """The dog is on pictures 3, 33 and 5, the next two on one each."""
    numbers, scores = torch.full((count, PICTURES), -1), torch.zeros(count, PICTURES)
    numbers[DOG], scores[DOG] = torch.tensor([3, 33, 5]), torch.tensor([2.0, 1.5, 0.5])
    numbers[BARE, 0], scores[BARE, 0] = 5, 1.0
    numbers[EVIL, 0], scores[EVIL, 0] = 5, 0.25
    # Of each feature and rank: the positions and values of its map.
    maps = [([5, 6], [4.0, 2.0]), ([6], [3.0]), ([8], [2.0]), ([7], [4.0]), ([], []), ([], []), ([5], [1.0])]
    maps += [([], [])] * (count * PICTURES - len(maps))
    histogram = torch.zeros(count, 2, 48, dtype=torch.int64)
    histogram[DOG, 0, 22:26] = torch.tensor([2, 5, 0, 1])  # 2 to 8
    histogram[DOG, 1, 21] = 4
    histogram[BARE, 0, 24], histogram[EVIL, 0, 20] = 1, 1
    peak = torch.zeros(count)
    peak[[DOG, BARE, EVIL]] = torch.tensor([4.0, 6.0, 1.0])
    near = torch.tensor([[(f + 1) % count, (f + 2) % count] for f in range(count)])
    for block in range(-(-count // 512)):
        mine = slice(512 * block, min(count, 512 * (block + 1)))
        held = maps[mine.start * PICTURES : mine.stop * PICTURES]
        words = [json.dumps([[" dog", HOSTILE if f == EVIL else " puppy"], [" cat", "\n"]]) for f in range(mine.start, mine.stop)]
        tensors = {
            "top_numbers": numbers[mine].int(),
            "top_scores": scores[mine],
            "map_ends": torch.tensor([len(at) for at, _ in held]).cumsum(0),
            "map_positions": torch.tensor([p for at, _ in held for p in at]).int(),
            "map_values": torch.tensor([v for _, values in held for v in values]),
            "histogram": histogram[mine],
            "pictures": (numbers[mine] >= 0).sum(1),
            "peak": peak[mine],
            "neighbours": near[mine].int(),
            "cosines": torch.tensor([[0.9, -0.25]] * len(near[mine])),
            **packed(words, "words"),
        }
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"features/{block:05}.safetensors")
