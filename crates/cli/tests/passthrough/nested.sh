mkdir -p /run/root/bin && cp "$(command -v busybox)" /run/root/bin/busybox
for applet in sh cat readlink basename; do ln -s busybox /run/root/bin/$applet; done
serve
release=$(uname -r)
# Where the tests' driver for slices could be built.
with_slice=
if modprobe slices; then
    echo slices > $pci/$alone/driver_override
    echo $alone > /sys/bus/pci/drivers/bochs-drm/unbind
    echo $alone > /sys/bus/pci/drivers_probe
    slice=11111111-2222-3333-4444-555555555555
    $PONTOON mdev create $alone slices-large --uuid $slice || fail "there is a slice"
    with_slice="--vfio $slice"
fi
before=$(state)
$PONTOON sriov set $physical 1 || fail "there is a virtual function"
function=$(readlink -f $pci/$physical/virtfn0)
function=${function##*/}
begun=$SECONDS
try $PONTOON vm run --accel tcg --cpus 1 --boot-timeout 300 --gpu=$card --vfio $function $with_slice --memory 256 --shared-memory 0 --kernel $VMLINUX --modules /lib/modules/$release \
    /run/root /bin/sh -c 'for d in /sys/bus/pci/devices/*; do echo $(cat $d/vendor):$(cat $d/device) $(cat $d/class) $(basename $(readlink $d/driver)); done; exit 7'
echo "the machine within took $((SECONDS - begun)) s"
# The card, its sound and the function, with their own drivers within, and the slice.
says "0x1234:0x1111 0x038000 bochs-drm"
says "0x8086:0x2668 0x040300 snd_hda_intel"
says "0x8086:0x10ca 0x020000"
[[ -z $with_slice ]] || says "0x1234:0x51ce 0x038000"
[[ $code == 7 ]] || fail "the exit code passes through: $code"
[[ -z $(driver $function) ]] || fail "the function has no driver, as before"
try $PONTOON sriov set $physical 0
[[ -z $with_slice ]] || $PONTOON mdev rm $slice || fail "the slice is removed"
unchanged "the machine has ended"
echo "ALL DONE"
