#!/usr/bin/env bash
# Writes an SSLConfig (--ssl_config_file) from PEM files to standard output.
#
#   serving/ssl_config.sh KEY CERTIFICATE [CLIENT_CA] > ssl.config
#
# With CLIENT_CA, only clients with a certificate of that authority are let in
# (mutual TLS). The output holds the private key: a file is made readable by its
# owner alone before anything is written, and no other program sees the key.
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
config=$(grep -v '^#' "$(dirname "$0")/ssl.config.template")
# By the shell itself: arguments of sed could be read by every user of the machine.
config=${config//@SERVER_KEY@/"$key"}
config=${config//@SERVER_CERT@/"$certificate"}
config=${config//@CUSTOM_CA@/"$ca"}
config=${config//@CLIENT_VERIFY@/$([ $# -lt 3 ] && echo false || echo true)}
if [ -f /dev/stdout ]; then
  chmod 600 /dev/stdout
fi
printf '%s\n' "$config"
