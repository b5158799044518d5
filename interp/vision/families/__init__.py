"""One module for each way in which image processors cut up a picture. The table of families is `interp.vision.layouts`."""
