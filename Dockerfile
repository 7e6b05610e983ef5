# retinanet for CPUs: the server by default, every other command as well. docs/docker.md tells how to use it.
#
#     docker build -t retinanet --build-arg TORCH_INDEX_URL=... .
#     docker run -p 127.0.0.1:8000:8000 -v "$PWD/runs/mine:/model:ro" retinanet

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Where pip finds packages: its usual index unless these are given. PyTorch's own index for CPUs keeps the CUDA
# libraries, some gigabytes, out of the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG TORCH_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
# No pip in the environment itself: nothing is installed at run time.
RUN python -m venv --without-pip /opt/retinanet
RUN pip --python /opt/retinanet/bin/python install -c constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN pip --python /opt/retinanet/bin/python install -c constraints.txt ".[onnx,serve]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/retinanet /opt/retinanet
# What must not be in here: codecs under the GPL (PyAV's and OpenCV's wheels bring them), and compilers.
RUN found="$(find / -xdev \( -iname 'libx264*' -o -iname 'libx265*' -o -iname 'libavcodec*' -o -name ffmpeg \
        -o -path '*/bin/gcc*' -o -name cc1 -o -path '*/site-packages/av' -o -path '*/site-packages/cv2' \) -print)"; \
    if [ -n "$found" ]; then echo "these must not be in the image: $found" >&2; exit 1; fi
RUN useradd --create-home --uid 10001 retinanet
USER retinanet
WORKDIR /home/retinanet
ENV PATH=/opt/retinanet/bin:$PATH
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["retinanet"]
# A container has to listen on all of its own addresses; who reaches them is decided by docker run -p.
CMD ["serve", "/model", "--host", "0.0.0.0", "--port", "8000", "--no-token"]
