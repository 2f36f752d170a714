"""From files that nobody has labelled to what a run sees on them."""
