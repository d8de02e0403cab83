# The server: no torch, no GPU. Build from the repository's root:
#   docker build -f docker/server.Dockerfile -t bertune-server .
FROM python:3.12-slim
WORKDIR /opt/bertune
COPY pyproject.toml constraints.txt README.md ./
COPY model ./model
COPY studies ./studies
COPY service ./service
RUN pip install --no-cache-dir -c constraints.txt '.[postgres]' \
    && useradd --create-home bertune \
    && mkdir /data && chown bertune /data
USER bertune
ENV BERTUNE_HOME=/data BERTUNE_HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz')"
CMD ["bertune", "serve"]
