"""Training from TFRecord shards to weights. Needs TensorFlow."""
