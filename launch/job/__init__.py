"""What the programs are made of."""
