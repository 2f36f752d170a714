"""What a trained network answers on a labelled split: numbers, files and pictures."""
