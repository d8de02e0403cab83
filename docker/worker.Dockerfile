# A worker: torch and transformers come with the base image, on CUDA. It needs BERTUNE_SERVER and
# BERTUNE_KEY, no volume and no open port. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t bertune-worker .
FROM pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime
WORKDIR /opt/bertune
COPY pyproject.toml constraints.txt README.md ./
COPY model ./model
COPY studies ./studies
COPY service ./service
# The base image's torch stays: it is the CUDA build of the pinned version.
RUN pip install --no-cache-dir -c constraints.txt '.[train]' \
    && useradd --create-home bertune
USER bertune
WORKDIR /home/bertune
CMD ["bertune", "worker"]
