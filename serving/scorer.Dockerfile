# The scorer: reads DICOM, asks a server, writes results. No TensorFlow in it.
#
#   docker build -f serving/scorer.Dockerfile -t covid-tf-scorer:0.1.0 .
FROM python:3.11-slim

COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src

USER 65532:65532
ENTRYPOINT ["covid-tf"]
CMD ["--help"]
