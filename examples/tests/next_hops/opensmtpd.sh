#!/bin/sh
# Runs OpenSMTPD of an unpacked Debian package where it finds the folders whose names are compiled
# in.
#
# Usage: unshare --mount sh opensmtpd.sh PACKAGES FOLDER
set -eu
. "$(dirname "$0")/namespace.sh"
mkdir -p /var/lib/opensmtpd/empty /var/spool
mkdir -m 711 /var/spool/smtpd
mount --bind "$1/usr/libexec" /usr/libexec
exec "$1/usr/sbin/smtpd" -d -f "$2/configuration"
