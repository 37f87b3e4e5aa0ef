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
printf "[http]\nenabled = false\n" > /run/pontoon.toml
$PONTOON serve --config /run/pontoon.toml --socket /run/g/pontoon.sock 2> /run/log &
daemon=$!
until [[ -S /run/g/pontoon.sock ]]; do sleep 0.1; done
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
# Kills a command and what it started as soon as something holds, and puts back what is left.
killed_when() {
    local what=$1
    shift
    "$@" > /dev/null 2>&1 &
    local begun=$SECONDS
    until eval "$what"; do
        (( SECONDS - begun < 60 )) || fail "$what never came"
    done
    for each in "worker passthrough" "pontoon mdev" "worker step"; do pkill -9 -f "$each"; done
    wait 2> /dev/null
    echo "killed: $what: $(ls $slices)"
    try $PONTOON vfio restore
    [[ ! -e $slices/$first && $(left small) == 4 ]] || fail "nothing is left of it"
    unchanged "killed when $what"
}
killed_when "[[ -e $journal ]]" $PONTOON mdev create $alone slices-small --uuid $first
killed_when "[[ -e $slices/$first ]]" $PONTOON mdev create $alone slices-small --uuid $first
$PONTOON mdev create $alone slices-small --uuid $first || fail "it is made"
killed_when "[[ \$(< $journal) == *restoring* ]]" $PONTOON mdev rm $first
$PONTOON mdev create $alone slices-small --uuid $first || fail "it is made"
killed_when "[[ ! -e $slices/$first ]]" $PONTOON mdev rm $first

echo $alone > /sys/bus/pci/drivers/slices/unbind
echo > $pci/$alone/driver_override
echo $alone > /sys/bus/pci/drivers/bochs-drm/bind
[[ $(driver $alone) == bochs-drm ]] || fail "its own driver has it again"
echo "ALL DONE"
