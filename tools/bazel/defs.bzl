"""The macro for this project's tests."""

load("@rules_python//python:defs.bzl", "py_test")

def covid_py_test(name, data = [], **kwargs):
    """Makes a target of one pytest file, `<name>.py`.

    Args:
      name: of the target; ends in _test.
      data: files that it reads besides the package.
      **kwargs: further attributes of py_test, such as size and tags.
    """
    test_file = name + ".py"
    py_test(
        name = name,
        srcs = [
            test_file,
            "//tools/bazel:pytest_main.py",
        ],
        main = "//tools/bazel:pytest_main.py",
        args = ["$(location %s)" % test_file],
        data = data,
        deps = [
            "//:conftest",
            "//covid_tf",
            "//tests:support",
            "//tools",
        ],
        **kwargs
    )
