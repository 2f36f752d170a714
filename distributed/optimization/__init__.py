"""One optimizer step, and the learning rate that it is taken by."""
