# Two stages: the first has compilers' leftovers and pip's cache, the second only what runs.
FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY requirements/runtime.txt requirements/
RUN /opt/venv/bin/pip install -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim

RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/holdfast holdfast
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER holdfast
WORKDIR /var/lib/holdfast
VOLUME /var/lib/holdfast
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 CMD ["holdfast", "healthcheck"]
ENTRYPOINT ["holdfast"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--data", "/var/lib/holdfast/holdfast.db"]
