"""The macro for this project's tests."""

load("@rules_python//python:defs.bzl", "py_test")

def covid_py_test(name, deps = [], data = [], args = [], **kwargs):
    """Makes a target of one pytest file, `<name>.py`.

    Args:
      name: of the target; ends in _test.
      deps: what the file imports besides the package and the tests' own helpers.
      data: files that it reads besides tests/data.
      args: more arguments for pytest.
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
        args = ["$(location %s)" % test_file] + args,
        data = data + ["//tests:data"],
        deps = deps + [
            "//:conftest",
            "//covid_tf",
            "//tests:support",
        ],
        **kwargs
    )
