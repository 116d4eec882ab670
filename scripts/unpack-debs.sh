#!/usr/bin/env bash
# Fetches packages of this Debian or Ubuntu, with what they depend on and the system lacks, and unpacks them into a
# folder. Needs no root and installs nothing: apt-get takes mirrors and keys from the machine's own configuration,
# checks the signatures, and keeps its lists and archives in a temporary folder.
#
#   scripts/unpack-debs.sh FOLDER PACKAGE…
set -euo pipefail

folder=$1
shift
for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "$tool is needed to fetch $*: this is no Debian or Ubuntu system." >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
cat >"$work/apt.conf" <<CONF
Dir::State::Lists "$work/lists";
Dir::State::extended_states "$work/extended_states";
Dir::Cache "$work/cache";
Dir::Log "$work";
Debug::NoLocking "1";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Check-Valid-Until "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
CONF

apt() {
  LC_ALL=C apt-get -q -y -c "$work/apt.conf" "$@" >"$work/log" 2>&1 || { grep '^E:' "$work/log" >&2; exit 1; }
}
apt update
apt install --download-only --reinstall "$@"

mkdir -p "$folder"
for package in "$work"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$folder"
done
