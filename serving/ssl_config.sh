#!/usr/bin/env bash
# Writes an SSLConfig (--ssl_config_file) from PEM files to standard output.
#
#   serving/ssl_config.sh KEY CERTIFICATE [CLIENT_CA] > ssl.config
#
# With CLIENT_CA, only clients with a certificate of that authority are let in
# (mutual TLS). The output holds the private key: keep it as you keep that.
set -euo pipefail

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo "usage: $0 KEY CERTIFICATE [CLIENT_CA] > ssl.config" >&2
  exit 2
fi

# A PEM file as one line of text format.
quoted() {
  grep -q -- '-----BEGIN' "$1" || { echo "$1: not a PEM file" >&2; exit 1; }
  awk '{ sub(/\r$/, ""); printf "%s\\n", $0 }' "$1"
}

key=$(quoted "$1")
certificate=$(quoted "$2")
ca=$([ $# -lt 3 ] || quoted "$3")
umask 077
sed -e "/^#/d" -e "s|@SERVER_KEY@|${key//\\/\\\\}|" \
  -e "s|@SERVER_CERT@|${certificate//\\/\\\\}|" -e "s|@CUSTOM_CA@|${ca//\\/\\\\}|" \
  -e "s|@CLIENT_VERIFY@|$([ $# -lt 3 ] && echo false || echo true)|" \
  "$(dirname "$0")/ssl.config.template"
