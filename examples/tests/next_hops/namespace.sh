# Read by exim.sh and opensmtpd.sh, in a mount namespace of their own: gives the server the users that
# its package would have made, empty folders for what it keeps, and the libraries that this system
# lacks.
#
# $1: the folder of the unpacked packages.
mount --bind "$(dirname "$0")/passwd" /etc/passwd
mount --bind "$(dirname "$0")/group" /etc/group
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var
ln -s /run /var/run
ldconfig -C /run/ld.so.cache "$1"/usr/lib/*-linux-gnu* "$1"/lib/*-linux-gnu* 2>/run/ldconfig.log
mount --bind /run/ld.so.cache /etc/ld.so.cache
