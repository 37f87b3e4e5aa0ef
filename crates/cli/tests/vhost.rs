//! The kernel's own vsock: a virtual machine that somebody starts themselves, by the lines of `pontoon vm args qemu`, meets
//! the listener of `listen.vsock`. The host is an emulated computer with Debian's kernel, since the kernel that tests run
//! on may have no `vhost_vsock`; the machine is one within that.

mod common;

use std::time::Duration;

use common::models::variable;
use pontoon_testbed::{Machine, ready};

const SCRIPT: &str = r#"
set -e
export XDG_RUNTIME_DIR=/run PONTOON_DATA=/run/data NODEVICE_SELECT=1
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
modprobe vhost_vsock
lines=$(PONTOON vm args qemu --cid 5)
part() { echo "$lines" | sed -n "/^# $1\$/,/^\$/p" | sed '1d;/^$/d'; }
part pontoon.toml > /run/pontoon.toml
grep -q 'vsock = 7300' /run/pontoon.toml
printf "\n[http]\nenabled = false\n[[policies]]\nname = 'mine'\nmatch = { vm = 5 }\ntenant = 'five'\n" >> /run/pontoon.toml
PONTOON serve --socket /run/g/pontoon.sock --config /run/pontoon.toml 2> /run/log &
for try in {1..300}; do grep -q "listening on vsock port 7300" /run/log && break; sleep 0.1; done
grep "listening on vsock port 7300" /run/log || { cat /run/log; exit 1; }

# The machine within: busybox, its drivers, one static program.
mkdir -p /run/inner/bin /run/inner/modules && cd /run/inner
cp "$(command -v busybox)" bin/busybox && cp GUEST bin/doctor
for module in $(modprobe -D -a virtio_pci vmw_vsock_virtio_transport | sed -n 's/^insmod \([^ ]*\).*/\1/p'); do
    cp "$module" modules/ && basename "$module" >> modules/order
done
cat > init <<'INIT'
#!/bin/busybox sh
for place in proc sys dev; do /bin/busybox mkdir -p /$place; done
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
export GUESTLINE
/bin/doctor --no-models
echo "doctor: $?"
# What was said last is still on its way.
/bin/busybox stty -F /dev/ttyS0 cooked
/bin/busybox poweroff -f
INIT
sed -i "s|GUESTLINE|$(part 'the guest')|" init && chmod +x init
find . | busybox cpio -o -H newc 2> /dev/null > /run/inner.cpio
timeout 400 qemu-system-x86_64 -machine pc,smm=off,usb=off,vmport=off,graphics=off,hpet=off -accel tcg \
    -cpu max,-erms,-fsrm,-smap,-smep,-la57,-pku,-umip -smp 1 -m 256 -nodefaults -no-user-config -display none -no-reboot \
    -serial stdio -monitor none -kernel VMLINUX -initrd /run/inner.cpio $(part 'the monitor') -append \
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable clearcpuid=112 no_timer_check init_on_alloc=0 apparmor=0 audit=0 cryptomgr.notests random.trust_cpu=on" < /dev/null
grep -o "vsock.*" /run/log
kill %1; wait %1 || true
"#;

#[test]
fn a_machine_meets_the_kernels_vsock() {
    let parts = || -> anyhow::Result<_> {
        let guest = variable("PONTOON_GUEST_BIN")?.join("pontoon-doctor");
        Ok((Machine::new()?, guest, variable("PONTOON_TEST_WHOLE_KERNEL")?.join("vmlinux")))
    };
    let (machine, guest, kernel) = match parts() {
        Ok(parts) => parts,
        Err(reason) => {
            ready(Err(reason));
            return;
        }
    };
    let script = SCRIPT
        .replace("PONTOON ", &format!("{} ", env!("CARGO_BIN_EXE_pontoon")))
        .replace("GUEST ", &format!("{} ", guest.display()))
        .replace("VMLINUX ", &format!("{} ", kernel.display()));
    let said = machine.run(&script, Duration::from_secs(500)).unwrap();
    assert!(said.contains("numbers came back doubled") && said.contains("doctor: 0"), "{said}");
    assert!(said.contains("vsock, tenant five, policy mine"), "{said}");
}
