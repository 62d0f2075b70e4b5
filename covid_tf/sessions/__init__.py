"""SavedModels in TF1 sessions, as TF Serving runs them. Needs TensorFlow."""
