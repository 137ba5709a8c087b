# The sample's base image where Docker Hub answers; elsewhere setup/base.py builds the same content with mmdebstrap.
FROM debian:bookworm-slim
COPY base.packages /tmp/base.packages
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(grep -v '^#' /tmp/base.packages) \
 && rm -rf /tmp/base.packages /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc /usr/share/man /usr/share/locale
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
CMD ["python3"]
