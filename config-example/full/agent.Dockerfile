# An agent image of your own. It is built with the same arguments as the bundled one and needs
# `claude` and `git` on the path, a user with the id AGENT_UID, and nothing listening.
FROM node:22-bookworm-slim
ARG CLAUDE_VERSION=2.1.197
ARG AGENT_UID=1000
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git ripgrep \
 && rm -rf /var/lib/apt/lists/* \
 && npm install --global "@anthropic-ai/claude-code@$CLAUDE_VERSION"
RUN groupadd --non-unique --gid "$AGENT_UID" agent \
 && useradd --non-unique --uid "$AGENT_UID" --gid "$AGENT_UID" --home-dir /home/agent --create-home --shell /bin/bash agent \
 && install -d -o "$AGENT_UID" -g "$AGENT_UID" /workspace \
 && install -d /etc/claude-code
ENV LANG=C.UTF-8 TZ=UTC TERM=xterm-256color DISABLE_AUTOUPDATER=1 DISABLE_INSTALLATION_CHECKS=1
USER agent
WORKDIR /workspace
CMD ["claude"]
