# Airflow, dbt and the training. Build it from the root of the repository:
#   docker build -f deploy/airflow.Dockerfile -t mled-airflow .
#
# The official image gives Airflow's user, the system's libraries and what the official Helm chart
# expects. Its Python packages are not used: ours are locked as a whole, in an environment of their
# own, as `make up` installs them and the tests run them.
FROM apache/airflow:slim-3.3.2-python3.11

# cpu: the small build of torch; cu130, auto or another of uv's: one for GPUs; empty: the registry's.
ARG TORCH_BACKEND=cpu

USER root
RUN install -d -o airflow -g 0 /opt/mled /var/lib/mled

# By number, so that Kubernetes sees that it is not root.
USER 50000
WORKDIR /opt/mled
COPY --chown=airflow:0 requirements.txt ./
# The base's variables point pip and uv at its own packages.
RUN python -m venv .venv \
    && PIP_USER=no .venv/bin/python -m pip install --quiet --no-cache-dir uv==0.13.8 \
    && .venv/bin/uv pip install --quiet --no-cache --compile-bytecode --python .venv/bin/python \
        ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} -r requirements.txt
COPY --chown=airflow:0 . .
RUN .venv/bin/uv pip install --quiet --no-cache --python .venv/bin/python \
        --no-deps --no-build-isolation -e .

# What trials record as their code's version: git rev-parse HEAD.
ARG COMMIT
RUN echo "$COMMIT" > COMMIT

ENV PATH=/opt/mled/.venv/bin:$PATH \
    MLED_HOME=/var/lib/mled \
    MLED_HOST=0.0.0.0
ENTRYPOINT ["/usr/bin/dumb-init", "--"]
CMD ["mled", "--help"]
