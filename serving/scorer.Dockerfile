# The scorer: reads DICOM, asks a server, writes results. No TensorFlow in it.
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
    pip install --no-cache-dir /wheels/*.whl

# No home to write to: matplotlib keeps its fonts' list where everything may.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER 65532:65532
ENTRYPOINT ["covid-tf"]
CMD ["--help"]
