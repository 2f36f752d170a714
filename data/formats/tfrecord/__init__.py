"""`tfrecord`: shards of TFRecords, read at random."""
