# The scorer, and the node (`covid-tf node`): reads DICOM, asks a server, writes
# results and DICOM objects. No TensorFlow in it.
#
#   docker build -f serving/scorer.Dockerfile -t covid-tf-scorer:0.1.0 .
#
# What may enter the build is listed in scorer.Dockerfile.dockerignore (BuildKit):
# studies and models that lie in the checkout do not.
FROM python:3.11-slim AS wheel

COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.11-slim

RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    for wheel in /wheels/*.whl; do \
      pip install --no-cache-dir "${wheel}[clinic]" || exit 1; \
    done

# A new volume takes its owner from here: the node keeps spool and results in it.
RUN install -d -o 65532 -g 65532 /data

# No home to write to: matplotlib keeps its fonts' list where everything may.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER 65532:65532
ENTRYPOINT ["covid-tf"]
CMD ["--help"]
