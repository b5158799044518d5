"""Studies: an SAE's features cached, explained, scored and tried on many pictures, from the command line (`python -m interp.study --help`)."""
