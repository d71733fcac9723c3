#!/bin/sh
# Runs once in the base stage of the image: package sources, then certificates.
# APT_MIRROR and APT_SECURITY_MIRROR come from build arguments; empty means Debian's own servers.
set -eu

# shellcheck source=/dev/null # the image's, not this machine's
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Written anew, so that an official base image and one made by debootstrap end up the same.
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
cat >/etc/apt/sources.list.d/debian.sources <<SOURCES
Types: deb
URIs: ${APT_MIRROR:-http://deb.debian.org/debian}
Suites: $codename $codename-updates
Components: main
Signed-By: $keyring

Types: deb
URIs: ${APT_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
Suites: $codename-security
Components: main
Signed-By: $keyring
SOURCES

# No manuals, no translations, no fsync after each file of a layer that is thrown away on a crash.
cat >/etc/dpkg/dpkg.cfg.d/agent-image <<'DPKG'
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
DPKG
cat >/etc/apt/apt.conf.d/agent-image <<'APT'
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Binary::apt-get::APT::Keep-Downloaded-Packages "false";
APT

# A mirror behind https is read before the package with the usual authorities is there.
bundle=/tmp/host-authorities.pem
cat /usr/local/share/ca-certificates/*.crt >"$bundle" 2>/dev/null || true
if [ -s "$bundle" ]; then
    echo "Acquire::https::CaInfo \"$bundle\";" >/etc/apt/apt.conf.d/host-authorities
fi

apt-get update
apt-get install -y --no-install-recommends ca-certificates
rm -f /etc/apt/apt.conf.d/host-authorities "$bundle"
update-ca-certificates
rm -rf /var/lib/apt/lists/*
