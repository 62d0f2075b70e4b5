"""The two networks as Keras models, and what is exported of them. Needs TensorFlow."""
