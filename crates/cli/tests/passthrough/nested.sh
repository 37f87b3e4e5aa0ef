mkdir -p /run/root/bin && cp "$(command -v busybox)" /run/root/bin/busybox
for applet in sh cat readlink basename; do ln -s busybox /run/root/bin/$applet; done
printf "[http]\nenabled = false\n" > /run/pontoon.toml
$PONTOON serve --config /run/pontoon.toml --socket /run/g/pontoon.sock 2> /run/log &
until [[ -S /run/g/pontoon.sock ]]; do sleep 0.1; done
release=$(uname -r)
modprobe slices || fail "tests/passthrough/slices is not there as a module"
echo slices > $pci/$alone/driver_override
echo $alone > /sys/bus/pci/drivers/bochs-drm/unbind
echo $alone > /sys/bus/pci/drivers_probe
before=$(state)
slice=11111111-2222-3333-4444-555555555555
$PONTOON mdev create $alone slices-large --uuid $slice || fail "there is a slice"
$PONTOON sriov set $physical 1 || fail "there is a virtual function"
function=$(readlink -f $pci/$physical/virtfn0)
function=${function##*/}
begun=$SECONDS
try $PONTOON vm run --accel tcg --cpus 1 --boot-timeout 300 --gpu=$card --vfio $function --vfio $slice --memory 256 --shared-memory 0 --kernel $VMLINUX --modules /lib/modules/$release \
    /run/root /bin/sh -c 'for d in /sys/bus/pci/devices/*; do echo $(cat $d/vendor):$(cat $d/device) $(cat $d/class) $(basename $(readlink $d/driver)); done; exit 7'
echo "the machine within took $((SECONDS - begun)) s"
# The card, its sound and the function, with their own drivers within, and the slice.
says "0x1234:0x1111 0x038000 bochs-drm"
says "0x8086:0x2668 0x040300 snd_hda_intel"
says "0x8086:0x10ca 0x020000"
says "0x1234:0x51ce 0x038000"
[[ $code == 7 ]] || fail "the exit code passes through: $code"
[[ -z $(driver $function) ]] || fail "the function has no driver, as before"
try $PONTOON sriov set $physical 0
try $PONTOON mdev rm $slice
[[ $code == 0 ]] || fail "the slice is removed"
unchanged "the machine has ended"
echo "ALL DONE"
