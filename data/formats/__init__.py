"""The kinds of data sets, each opened as sources: what lies where on the disk, and what it is called."""
