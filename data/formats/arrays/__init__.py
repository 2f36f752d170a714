"""What data sets of arrays share: names, checks, and pixels and labels in other forms."""
