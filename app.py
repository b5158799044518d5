"""LLaVA Microscope: run `python app.py` and open the address it prints. `python app.py --help` lists the options."""

import argparse
import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

if "SPACES_ZERO_GPU" in os.environ:
    import spaces  # noqa: F401 - before torch, in which it emulates a GPU

    # There, only the main thread may put weights on the GPU; transformers would use other threads.
    os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")

import gradio as gr

from interp.devices import free_bytes, pick_devices
from interp.errors import InterpError
from interp.models.names import with_adapter
from interp.presets import ASSETS, PRESETS
from interp.service.picture_zip import MAX_ZIP
from interp.service.service import Service
from interp.service.zerogpu import remote
from interp.study.feature_index import FeatureIndex
from interp.ui.page import CSS, TITLE, build
from interp.ui.refusals import server_options

EMBEDDED = "emoji-llava"
QUANTIZE = ("auto", "4bit", "none")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options from the command line and the environment; the command line wins."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL", ""),
        help=f"preset, hub id or folder (or set MODEL); default: the largest preset that fits the GPU, or {EMBEDDED} without a GPU",
    )
    parser.add_argument(
        "--adapter",
        default=os.environ.get("ADAPTER", ""),
        help="a fine-tune of the model: folder or hub id of a LoRA adapter of PEFT, in safetensors (or set ADAPTER)",
    )
    parser.add_argument("--quantize", default=os.environ.get("QUANTIZE") or "auto", help=f"one of {', '.join(QUANTIZE)} (or set QUANTIZE)")
    parser.add_argument(
        "--sae",
        default=os.environ.get("SAE", ""),
        help="default SAE: a known name, release/id, hub repository or folder (or set SAE)",
    )
    parser.add_argument("--layer", type=int, default=None, help="the layer of the SAE, where the model or --sae has several")
    parser.add_argument(
        "--lens",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a lens of the model: what interp.lens.train or interp.lens.index wrote, or a tuned lens from the hub; may be repeated",
    )
    parser.add_argument(
        "--study",
        action="append",
        metavar="FOLDER",
        help="a study with an index of features (interp.study serve-index), or the index alone, to look into; may be repeated (or set STUDY to one); "
        "unless others are given, the first one's model and SAE are run",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced (spread over all GPUs)")
    parser.add_argument("--host", default=None, help="address to listen on; any but this machine's own makes the server shared")
    parser.add_argument("--port", type=int, default=None, help="default: the first free port from 7860 on")
    parser.add_argument("--share", action="store_true", help="create a public link")
    parser.add_argument("--any-model", action="store_true", help="let visitors of a shared server choose any model")
    parser.add_argument("--learn", action="store_true", help="let visitors of a shared server learn concepts from pictures they upload")
    args = parser.parse_args(given)
    args.study = args.study or [folder for folder in [os.environ.get("STUDY")] if folder]
    if args.quantize not in QUANTIZE:
        parser.error(f"quantize is {args.quantize!r}; it must be one of {', '.join(QUANTIZE)}.")
    if args.adapter and not args.model:
        parser.error("--adapter needs --model: the model that the adapter was trained on.")
    if args.adapter:
        args.model = with_adapter(args.model, args.adapter)
    if args.any_model and remote():
        parser.error("--any-model is not possible on ZeroGPU, where the model is loaded before the first request. Leave it out.")
    if args.learn and remote():
        parser.error("--learn is not possible on ZeroGPU, whose calls are too short. Leave it out.")
    if args.quantize == "auto" and remote():
        args.quantize = "none"  # ZeroGPU's GPUs have room for 16 bit
    return args


def best_model(free: int, quantize: str = "auto") -> str:
    """The largest preset that fits into `free` bytes of GPU memory, has an SAE, and needs neither an account nor another package.

    Those that ship are not for a GPU: where none of the others fits, the embedded one opens, which answers the first click.
    """

    def gigabytes(name: str) -> float:
        return PRESETS[name].memory_16bit_gb if quantize == "none" else PRESETS[name].memory_gb(cpu=False)

    downloads = {name: preset for name, preset in PRESETS.items() if not preset.checkpoint.startswith(str(ASSETS))}
    ready = [name for name, preset in downloads.items() if preset.saes and not preset.gated and all(map(_installed, preset.requires))]
    return max((name for name in ready if gigabytes(name) * 1e9 <= free), key=gigabytes, default=EMBEDDED)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def service_for(args: argparse.Namespace) -> Service:
    """The service for these arguments.

    A model named by the user is loaded later; if that fails, the page shows the error. A default model is loaded now; if that fails, the embedded
    one replaces it.
    """
    local = args.host in {None, "127.0.0.1", "localhost"} and not args.share and "SPACE_ID" not in os.environ
    common: dict[str, Any] = {
        "quantize": args.quantize,
        "device": args.device,
        "shared": not local,
        "any_model": args.any_model,
        "learn": args.learn,
    }
    common["studies"] = args.study
    if args.study:
        _choose_studied(args)
    own: dict[str, Any] = {"sae": args.sae, "layer": args.layer, "lenses": args.lens}
    if args.model:
        return Service(args.model, **own, **common)
    gpus = [device for device in pick_devices(args.device) if device.type == "cuda"]
    name = best_model(sum(map(free_bytes, gpus)), args.quantize)
    if name != EMBEDDED:
        print(f"Loading {name}, the largest model that fits this GPU. `--model {EMBEDDED}` starts at once.", flush=True)  # noqa: T201
        service = Service(name, **own, **common)
        try:
            service.vlm()
        except (InterpError, OSError, RuntimeError) as error:
            notice = f"{name} could not be loaded, so this page runs {EMBEDDED}. {error}"
            print(notice, flush=True)  # noqa: T201
            return Service(EMBEDDED, notice=notice, **common)
        return service
    return Service(EMBEDDED, **own, **common)


def _choose_studied(args: argparse.Namespace) -> None:
    """Choose the model of the first study, unless another one is given, and then its SAE, likewise."""
    about = FeatureIndex.open(args.study[0]).about
    model, sae = about["model"]["source"], about["sae"]
    args.model = args.model or model
    if args.model == model and not args.sae and args.layer is None:
        known = [each.name for each in PRESETS[model].saes] if model in PRESETS else []
        # One that is known for the model goes by its name, whatever the study was begun with.
        args.sae, args.layer = (sae["name"], None) if sae["name"] in known else (sae["source"], sae["picked"])


def launch_options(args: argparse.Namespace) -> dict[str, Any]:
    """How the page is served."""
    return {
        "server_name": args.host,
        "server_port": args.port,
        "share": args.share,
        "max_file_size": MAX_ZIP,
        "strict_cors": True,  # no other page may use this server on a visitor's behalf
        # No files from the server's disk. Gradio copies the example pictures into its cache, next to uploads and downloads; each is in a folder
        # whose name is a hash that can be neither guessed nor listed.
        "allowed_paths": [],
        # It would keep every run's pictures in the browser, where the next user of that machine finds them. A link is enough to come back.
        "run_history": False,
        "mcp_server": _installed("mcp"),  # comes with `pip install "gradio[mcp]"`
        "theme": gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            # System fonts: no request to a font server.
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ),
        "css": CSS,
        "app_kwargs": server_options(),
    }


def load_ahead(service: Service) -> None:
    """Load the model and its SAE before they are needed."""

    def ahead(load: Callable[[], object]) -> None:
        with contextlib.suppress(InterpError):  # reported when it is requested
            load()

    if remote():
        # Now: the worker has only what was loaded before the fork, and only the main thread may use the emulated GPU.
        ahead(service.vlm)
        ahead(lambda: service.saes.get(None, service.default_model))
    else:
        # While the server starts, so that the first visitor waits less.
        threading.Thread(target=ahead, args=(service.vlm,), daemon=True).start()
        threading.Thread(target=ahead, args=(service.prepare_saes,), daemon=True).start()


def main() -> None:
    """Build the page and serve it."""
    args = arguments()
    try:
        service = service_for(args)
    except InterpError as error:
        sys.exit(str(error))
    demo = build(service)
    load_ahead(service)
    # Gradio's default on ZeroGPU is one visitor.
    demo.queue(max_size=64).launch(**launch_options(args))


if __name__ == "__main__":
    main()
