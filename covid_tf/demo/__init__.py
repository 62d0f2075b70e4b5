"""The whole path on phantoms, over the real protocol. No TensorFlow here."""
