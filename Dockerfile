# docker build -t alphatune .                          the CPU build of torch
# docker build -t alphatune --build-arg DEVICE=gpu .   the one with CUDA (run it with --gpus all)
# docker run --rm -v "$PWD:/work" alphatune run method=peqa quant.q=2
FROM python:3.11-slim

ARG DEVICE=cpu
# a Java runtime for METEOR, CIDEr and ROUGE-L of the E2E protocol
RUN apt-get update \
 && apt-get install -y --no-install-recommends default-jre-headless \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/alphatune
COPY requirements.lock requirements.hashes ./
# torch first, in the build that is asked for: the CUDA build brings NVIDIA's libraries, which the locks leave out
RUN torch="$(grep '^torch==' requirements.lock)" \
 && case "$DEVICE" in \
      cpu) pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "$torch+cpu" ;; \
      gpu) pip install --no-cache-dir "$torch" ;; \
      *) echo "DEVICE=$DEVICE: must be cpu or gpu"; exit 1 ;; \
    esac \
 && pip install --no-cache-dir --no-deps --require-hashes -r requirements.hashes
COPY pyproject.toml README.md LICENSE THIRD_PARTY.md ./
COPY alphatune alphatune
COPY conf conf
COPY experiments experiments
RUN pip install --no-cache-dir --no-deps .

WORKDIR /work
ENTRYPOINT ["alphatune"]
CMD ["--help"]
