"""The page and the API: the only part of `interp` that knows gradio."""
