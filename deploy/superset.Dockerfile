# Superset behind gunicorn. Build it from the root of the repository:
#   docker build -f deploy/superset.Dockerfile -t mled-superset .
#
# Python's official image and not Superset's: Superset works with older releases of its libraries
# only (include/superset/requirements.in says which), so the whole set is locked and installed
# afresh. On top of Superset's own image it would take the place of nearly all that is in there.
FROM python:3.11.13-slim-bookworm

# The user of the Airflow image, which writes what this one reads.
RUN useradd --uid 50000 --gid 0 --create-home superset \
    && install -d -o superset -g 0 /opt/mled /var/lib/mled /var/lib/mled/superset

# By number, so that Kubernetes sees that it is not root.
USER 50000
WORKDIR /opt/mled
COPY --chown=superset:0 include/superset/requirements.txt include/superset/
RUN python -m venv .venv-superset \
    && .venv-superset/bin/python -m pip install --quiet --no-cache-dir uv==0.13.8 \
    && .venv-superset/bin/uv pip install --quiet --no-cache --compile-bytecode \
        --python .venv-superset/bin/python -r include/superset/requirements.txt
COPY --chown=superset:0 . .

ENV PATH=/opt/mled/.venv-superset/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MLED_HOME=/var/lib/mled \
    MLED_HOST=0.0.0.0 \
    SUPERSET_HOME=/var/lib/mled/superset \
    SUPERSET_CONFIG_PATH=/opt/mled/include/superset/superset_config.py
CMD ["gunicorn", "-c", "include/superset/gunicorn.conf.py", "superset.app:create_app()"]
