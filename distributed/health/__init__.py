"""Signs of life, the monitor that reads them, and signals."""
