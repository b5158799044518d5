"""One module for each way that image processors cut up a picture. `interp.vision.layouts` maps model families to them."""
