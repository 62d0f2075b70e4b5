"""Collections a user can train on, and the phantom. No TensorFlow here."""
