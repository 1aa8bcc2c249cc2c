FROM python:3.13-slim

WORKDIR /app
RUN useradd --system choreo && install --directory --owner choreo var

# The packages alone, before the source: it may change without their being installed again.
COPY pyproject.toml constraints.txt ./
RUN mkdir choreo && touch choreo/__init__.py README.md LICENSE \
    && PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    pip install --no-cache-dir --root-user-action ignore --editable '.[services]'

COPY contracts contracts
COPY sandboxes sandboxes
COPY choreo choreo
COPY services services
COPY audits audits
RUN python -m compileall -q .

USER choreo
CMD ["choreo", "--help"]
