"""A run as those use it who come after training: what its network takes and answers, and the network itself."""
