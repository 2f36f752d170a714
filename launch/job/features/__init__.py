"""The outputs of layers that do not train, computed once and trained on."""
