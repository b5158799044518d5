"""Emoji world: the scenes, questions and recipe behind the embedded `emoji-llava`.

A scene is one to three emoji on a coloured background. This package draws scenes, asks and answers questions about them, and trains
and measures the model that ships in `assets/`. Nothing in `interp` imports it: the app treats the embedded model like any other.
"""
