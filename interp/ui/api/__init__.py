"""The public endpoints: named, typed, documented, not streaming. One function each."""
