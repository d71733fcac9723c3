#!/bin/sh
# fetch-claude.sh VERSION TARGET: puts the native Claude Code binary at TARGET.
# npm checks the package against the registry's integrity hash. NPM_REGISTRY may name a mirror.
set -eu

version=$1
target=$2
case $(dpkg --print-architecture) in
amd64) platform=linux-x64 ;;
arm64) platform=linux-arm64 ;;
*)
    echo "error: Claude Code has no binary for $(dpkg --print-architecture)" >&2
    exit 1
    ;;
esac

export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
export npm_config_cafile=/etc/ssl/certs/ca-certificates.crt
export npm_config_update_notifier=false
export npm_config_fetch_retries=3
if [ -n "${NPM_REGISTRY:-}" ]; then
    export npm_config_registry="$NPM_REGISTRY"
fi

# A tag such as `latest` is the wrapper package's; the platform package has the same versions.
exact=$(npm view "@anthropic-ai/claude-code@$version" version)
if [ -z "$exact" ]; then
    echo "error: the npm registry has no @anthropic-ai/claude-code@$version" >&2
    exit 1
fi
archive=$(npm pack --silent "@anthropic-ai/claude-code-$platform@$exact")
tar -xzf "$archive" package/claude
rm -f "$archive"
mv package/claude "$target"
chmod 0755 "$target"
"$target" --version
