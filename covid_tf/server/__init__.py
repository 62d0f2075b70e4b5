"""A local model server that speaks TF Serving's gRPC protocol, to the letter.

It exists so that everything is used over the real protocol where no TF Serving
binary can be had. What is checked first, and in which words it is refused, is TF
Serving's: a client that passes here passes there.
"""
