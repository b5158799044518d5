"""The views without gradio: payloads, static files, the standalone page."""
