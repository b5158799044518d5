"""The page and the API, built with gradio."""
