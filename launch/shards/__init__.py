"""What prepare.py writes: a data set as TFRecord shards."""
