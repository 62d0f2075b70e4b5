"""What the BUILD files load, as the built-in rules; newer Bazel loads the real ones."""

py_binary = native.py_binary
py_library = native.py_library
py_runtime = native.py_runtime
py_test = native.py_test
