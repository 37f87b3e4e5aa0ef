#!/bin/busybox sh
# The first process of the machine: drivers, network, the command, its exit code, power off.
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
# Twice: which of two drivers needs the other differs between kernels.
for module in $(/bin/busybox cat /modules/order /modules/order); do
    /bin/busybox insmod /modules/$module 2> /dev/null
done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip address add 10.0.2.15/24 dev eth0
for place in proc sys dev; do
    /bin/busybox mkdir -p /root/$place
    /bin/busybox mount -o move /$place /root/$place
done
# The host waits for this line, then shows everything.
/bin/busybox echo pontoon-vm-ready > /root/dev/ttyS0
/bin/busybox chroot /root /.pontoon-command > /root/dev/ttyS0 2>&1 < /root/dev/null
/bin/busybox echo "pontoon-vm-exit $?" > /root/dev/ttyS1
/bin/busybox sync
/bin/busybox poweroff -f
