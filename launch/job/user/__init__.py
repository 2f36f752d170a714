"""What a user brings to a run besides the settings: a network, data, callbacks."""
