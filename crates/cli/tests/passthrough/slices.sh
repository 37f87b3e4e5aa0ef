echo "== a driver that offers slices has the card"
modprobe slices || fail "tests/passthrough/slices is not there as a module"
slices=/sys/bus/mdev/devices
echo slices > $pci/$alone/driver_override
echo $alone > /sys/bus/pci/drivers/bochs-drm/unbind
echo $alone > /sys/bus/pci/drivers_probe
[[ $(driver $alone) == slices ]] || fail "the driver has it"
left() { word $pci/$alone/mdev_supported_types/slices-$1/available_instances; }
before=$(state)
try $PONTOON gpu list
[[ $said == *"$alone "*" slices "*" 2 types "*available* ]] || fail "its types are counted"
try $PONTOON gpu list --json
says '"slices-large"'
says 'Two units'
try $PONTOON doctor
says "slices-large (2 left), slices-small (4 left)"

echo "== slices are made and removed"
try $PONTOON mdev create $alone nvidia-105
says "$alone offers no mediated type 'nvidia-105': it offers slices-large, slices-small"
try $PONTOON mdev create $card slices-small
says "it offers none"
first=11111111-2222-3333-4444-555555555555
try $PONTOON mdev create $alone slices-large --uuid $first
[[ $code == 0 && -e $slices/$first && $(left small) == 2 && $(left large) == 1 ]] || fail "it is there"
says "$first is a 'slices-large' of $alone"
try $PONTOON mdev create $alone slices-small --uuid $first
says "there is a mediated device $first already"
try $PONTOON mdev create $alone slices-large
second=${said%% *}
[[ $code == 0 && -e $slices/$second && $(left large) == 0 ]] || fail "so is another one"
try $PONTOON mdev create $alone slices-large
says "$alone has no 'slices-large' left"
try $PONTOON vfio status
says "\`pontoon mdev create\`  without $first, a 'slices-large'"
try $PONTOON vfio plan $alone
[[ $code == 1 ]] || fail "the card has slices"
says "$first"
try $PONTOON mdev rm $second
[[ $code == 0 && ! -e $slices/$second && $(left large) == 1 ]] || fail "it is removed"
try $PONTOON mdev rm $second
says "$second: there is no such mediated device"
echo 99999999-2222-3333-4444-555555555555 > $pci/$alone/mdev_supported_types/slices-small/create
try $PONTOON mdev rm 99999999-2222-3333-4444-555555555555
says "was not made by \`pontoon mdev create\`: left alone"
echo 1 > $slices/99999999-2222-3333-4444-555555555555/remove

echo "== QEMU has one open"
qemu=$QEMU/usr
mkfifo /run/qemu
# A QEMU that ends at once is told by its log.
trap '' PIPE
$qemu/bin/qemu-system-x86_64 -L $qemu/share/qemu -L $qemu/share/seabios -M q35 -accel tcg -m 64 -nodefaults -display none -S \
    -monitor stdio -device vfio-pci,sysfsdev=$slices/$first < /run/qemu > /run/qemu.log 2>&1 9>&- &
qemu=$!
exec 9> /run/qemu
echo "info pci" >&9
for try in {1..100}; do grep -q 1234:51ce /run/qemu.log && break; sleep 0.2; done
cat /run/qemu.log
grep -q "Display controller: PCI device 1234:51ce" /run/qemu.log || fail "the machine has it"
try $PONTOON mdev rm $first
[[ $code == 1 && -e $slices/$first ]] || fail "it is in use"
says "the mediated device $first is not removed: it is in use by qemu-system-x86 (pid $qemu); end that, then \`pontoon mdev rm $first\`"
mkdir -p /run/root/bin && cp "$(command -v busybox)" /run/root/bin/busybox && ln -s busybox /run/root/bin/sh
serve
try $PONTOON vm run --vfio $first --kernel $VMLINUX --modules /lib/modules/$(uname -r) /run/root /bin/sh
says "the mediated device $first is in use by qemu-system-x86 (pid $qemu): end that first, or make another one"
kill $qemu $daemon
wait
exec 9>&-
try $PONTOON vfio restore $alone
[[ $code == 0 && ! -e $slices/$first && $(left large) == 2 ]] || fail "all that was made is gone"
unchanged "slices"

echo "== kills"
journal=/run/pontoon-passthrough/mdev-$first.json
# Kills some of a command and what it started as soon as something holds, waits until the rest has ended, and puts back what
# is left.
killed_when() {
    local what=$1 victims=$2
    shift 2
    "$@" > /dev/null 2>&1 &
    local begun=$SECONDS
    until eval "$what"; do
        (( SECONDS - begun < 60 )) || fail "$what never came"
    done
    pkill -9 -f "$victims"
    wait 2> /dev/null
    echo "killed when $what: $(ls $slices)"
    try $PONTOON vfio restore
    for try in {1..100}; do pgrep -f "worker (passthrough|step)" > /dev/null || break; sleep 0.1; done
    [[ ! -e $slices/$first && $(left small) == 4 ]] || fail "nothing is left of it"
    unchanged "killed when $what"
}
all="worker (passthrough|step)|pontoon mdev"
# Its step lives on then, and does what it was told.
helper="worker passthrough|pontoon mdev"
for victims in "$all" "$helper"; do
    killed_when "[[ -e $journal ]]" "$victims" $PONTOON mdev create $alone slices-small --uuid $first
    killed_when "[[ -e $slices/$first ]]" "$victims" $PONTOON mdev create $alone slices-small --uuid $first
    $PONTOON mdev create $alone slices-small --uuid $first || fail "it is made"
    killed_when "[[ ! -e $journal || \$(< $journal) == *restoring* ]]" "$victims" $PONTOON mdev rm $first
    $PONTOON mdev create $alone slices-small --uuid $first || fail "it is made"
    killed_when "[[ ! -e $slices/$first ]]" "$victims" $PONTOON mdev rm $first
done

echo "== a user without rights, through sudo"
let_nobody_ask
try as_nobody /run/bin/pontoon mdev create $alone slices-small --uuid $first
[[ $code == 0 ]] || fail "it is made"
node=$(readlink $slices/$first/iommu_group)
node=/dev/vfio/${node##*/}
[[ $(stat -c %U $node) == nobody ]] || fail "who asked may open it"
# A machine with it alone takes nothing, but may lock its memory then: 256 MiB and 1 GiB more, in KiB.
order='{"order":"hold","devices":[],"force":false,"pid":PID,"memory_mib":256}'
said=$(as_nobody bash -c 'ulimit -l 64; echo "${0/PID/$$}" | sudo /run/bin/pontoon worker passthrough; ulimit -l' "$order" 2>&1)
echo "$said"
says "1310720"
said=$(as_nobody bash -c 'echo "${0/PID/$$}" | sudo /run/bin/pontoon worker passthrough' "${order/256/4000000000}" 2>&1)
says "a machine with 4000000000 MiB of memory is larger than this host"
try as_nobody /run/bin/pontoon vfio status
[[ $said != *"pontoon vm run"* ]] || fail "nothing is held"
try as_nobody /run/bin/pontoon mdev rm $first
[[ $code == 0 && ! -e $slices/$first ]] || fail "it is removed"
$PONTOON mdev create $alone slices-small --uuid $first || fail "root makes one"
mkdir -p /run/n && chown nobody /run/n
nobodys() { as_nobody env XDG_RUNTIME_DIR=/run/n PONTOON_DATA=/run/n/data PONTOON_HOST=unix:/run/n/g/pontoon.sock "$@"; }
nobodys /run/bin/pontoon serve --config /run/pontoon.toml --socket /run/n/g/pontoon.sock 2> /run/n/log &
for try in {1..300}; do [[ -S /run/n/g/pontoon.sock ]] && break; sleep 0.1; done
try nobodys /run/bin/pontoon vm run --vfio $first --vfio $first --kernel $VMLINUX --modules /lib/modules/$(uname -r) /run/root /bin/sh
says "you may not open /dev/vfio/"
says "the mediated device $first: make it as the user who runs the machine"
says "$first is named twice: name it once"
pkill -f "pontoon serve"
wait
$PONTOON mdev rm $first || fail "it is removed"
unchanged "through sudo"

echo $alone > /sys/bus/pci/drivers/slices/unbind
echo > $pci/$alone/driver_override
echo $alone > /sys/bus/pci/drivers/bochs-drm/bind
[[ $(driver $alone) == bochs-drm ]] || fail "its own driver has it again"
echo "ALL DONE"
