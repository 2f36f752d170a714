"""Where the time of a run goes, and how many steps a compiled call may take by it."""
