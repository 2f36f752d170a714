"""`cifar10`: the official archives."""
