"""The public endpoints: named, typed, documented, and not streaming. A function for each."""
