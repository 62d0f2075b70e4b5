"""The local server: TF Serving's gRPC protocol over SavedModels. Needs TensorFlow."""
