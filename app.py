"""LLaVA Microscope: `python app.py`, then open the address it prints. `python app.py --help` lists what can be changed."""

import argparse
import os
import threading

import gradio as gr

from interp.ui.page import CSS, TITLE, build
from interp.ui.service import Service


def main() -> None:
    """Build the page and serve it."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--model", default=os.environ.get("MODEL", "emoji-llava"), help="preset, hub id or folder (or set MODEL)")
    parser.add_argument("--quantize", default=os.environ.get("QUANTIZE", "auto"), choices=["auto", "4bit", "none"], help="or set QUANTIZE")
    parser.add_argument("--host", default=None, help="address to listen on; anything but this machine counts as shared")
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--share", action="store_true", help="make a public link")
    parser.add_argument("--any-model", action="store_true", help="let visitors of a shared server choose any model")
    args = parser.parse_args()
    local = args.host in {None, "127.0.0.1", "localhost"} and not args.share and "SPACE_ID" not in os.environ
    service = Service(args.model, quantize=args.quantize, shared=not local, any_model=args.any_model)
    demo = build(service)
    # The model is loaded while the server starts; the first visitor waits for whichever takes longer.
    threading.Thread(target=service.vlm, daemon=True).start()
    threading.Thread(target=service.prepare_saes, daemon=True).start()
    demo.queue(max_size=64).launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        max_file_size="30mb",
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            # Fonts of the system: nothing is asked of a font server.
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ),
        css=CSS,
        run_history=False,
    )


if __name__ == "__main__":
    main()
