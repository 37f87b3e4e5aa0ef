#!/bin/busybox sh
# The first process of the machine: drivers, network, mounts, the command, its exit code, power off.
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
if [ -e /disk ]; then
    # The disk, or the first part of it that has programs; what is written goes into memory.
    /bin/busybox cp /root/.pontoon-command /command
    /bin/busybox mkdir -p /lower /upper
    found=
    for part in /dev/vda /dev/vda[0-9]*; do
        /bin/busybox mount -o ro "$part" /lower 2> /dev/null || continue
        [ -d /lower/bin ] || [ -L /lower/bin ] || [ -d /lower/usr/bin ] && found=$part && break
        /bin/busybox umount /lower
    done
    [ -n "$found" ] || {
        /bin/busybox echo pontoon-vm-ready > /dev/ttyS0
        /bin/busybox echo "no part of the disk is a root file system that this kernel can mount (ext4, XFS and squashfs are tried)" > /dev/ttyS0
        /bin/busybox echo "pontoon-vm-exit 125" > /dev/ttyS1
        /bin/busybox stty -F /dev/ttyS1 cooked
        /bin/busybox poweroff -f
    }
    /bin/busybox mount -t tmpfs none /upper
    /bin/busybox mkdir -p /upper/files /upper/work
    /bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work none /root
    /bin/busybox cp /command /root/.pontoon-command
fi
for place in proc sys dev; do
    /bin/busybox mkdir -p /root/$place
    /bin/busybox mount -o move /$place /root/$place
done
end() {
    # What was said last is still on its way, and the machine's end would cut it off: setting a terminal waits for that.
    /bin/busybox stty -F /root/dev/ttyS0 cooked
    /bin/busybox echo "pontoon-vm-exit $1" > /root/dev/ttyS1
    /bin/busybox stty -F /root/dev/ttyS1 cooked
    /bin/busybox sync
    /bin/busybox poweroff -f
}
[ -e /root/.pontoon-command ] || {
    /bin/busybox echo pontoon-vm-ready > /root/dev/ttyS0
    /bin/busybox echo "the root file system did not fit into the machine's memory: give it more with --memory" > /root/dev/ttyS0
    end 125
}
# The script needs a shell; the root may have none.
/bin/busybox mkdir -p /root/.pontoon
/bin/busybox cp /bin/busybox /root/.pontoon/busybox
while read -r tag mode place; do
    /bin/busybox mkdir -p "/root$place"
    /bin/busybox mount -t virtiofs -o "$mode" "$tag" "/root$place" 2> /mount-error || {
        /bin/busybox echo pontoon-vm-ready > /root/dev/ttyS0
        /bin/busybox echo "$place cannot be mounted: $(/bin/busybox cat /mount-error)" > /root/dev/ttyS0
        end 125
    }
done < /mounts
if [ -e /devices ]; then
    # The drivers of what the host has passed on, and of everything else on PCI.
    for alias in /root/sys/bus/pci/devices/*/modalias; do
        /bin/busybox chroot /root /.pontoon/busybox modprobe -q "$(/bin/busybox cat $alias)" 2> /dev/null
    done
fi
# The host waits for this line, then shows everything.
/bin/busybox echo pontoon-vm-ready > /root/dev/ttyS0
if [ -e /interactive ]; then
    # The console is the command's terminal: signals, job control. Signals are for the command; this session stays until
    # all is said, since its end hangs the terminal up and drops what is on its way.
    /bin/busybox setsid /bin/busybox sh -c '
        trap : INT QUIT
        exec < /root/dev/ttyS0 > /root/dev/ttyS0 2>&1
        /bin/busybox chroot /root /.pontoon/busybox sh /.pontoon-command
        code=$?
        trap "" TTOU
        /bin/busybox stty cooked
        exit $code'
else
    /bin/busybox chroot /root /.pontoon/busybox sh /.pontoon-command > /root/dev/ttyS0 2>&1 < /root/dev/null
fi
end $?
