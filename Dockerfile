# unet-serve in a container, for amd64 and arm64:
#   docker build -t unet-edge . && docker run --rm --read-only -p 127.0.0.1:8000:8000 -e UNET_SERVE_TOKEN=secret unet-edge
# docs/serving.md has more.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY constraints.txt ./
COPY runtime runtime
# Packages with compiled parts have wheels for both processors: nothing is compiled here.
RUN python -m venv /opt/unet-edge \
    && /opt/unet-edge/bin/pip install --no-cache-dir --no-compile --only-binary=:all: --constraint constraints.txt \
        "./runtime[onnx,serve,heif]" \
    && /opt/unet-edge/bin/pip uninstall --yes pip \
    && find /opt/unet-edge -name tests -type d -prune -exec rm -rf {} +

FROM python:${PYTHON}-slim
COPY --from=build /opt/unet-edge /opt/unet-edge
RUN useradd --system --uid 10001 --no-create-home unet
USER 10001
ENV PATH=/opt/unet-edge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Models of your own: -v /path/to/models:/models:ro and, behind the image's name, --model /models
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without a token: the address is for watchdogs.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python", "-c", "\
import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["unet-serve", "--host", "0.0.0.0"]
