echo "== what there is"
try $PONTOON gpu list
says "boot-vga"
for device in $boot $alone $card $shared $twin $other_twin; do says $device; done
(( $(grep -c available <<< "$said") >= 3 )) || fail "cards are available"

echo "== plans change nothing, and say all that stands against them"
try $PONTOON vfio plan $card
[[ $code == 0 ]] || fail "nothing stands against it"
says "modprobe vfio-pci"
says "write 'vfio-pci' to /sys/bus/pci/devices/$sound/driver_override"
says "write '$card' to /sys/bus/pci/drivers/bochs-drm/unbind"
try $PONTOON vfio plan $boot $shared 0000:0f:00.0 $boot
[[ $code == 1 ]] || fail "much stands against it"
says "$boot (bochs-drm) is the boot display"
says "$shared shares IOMMU group $(group $shared) with $network (e1000)"
says "0000:0f:00.0: there is no such PCI device"
says "$boot is named twice: name it once"
exec 9<> /dev/dri/by-path/pci-$alone-card 2> /dev/null || exec 9<> /dev/dri/$(cd $pci/$alone/drm && echo card*)
try $PONTOON vfio bind $alone
[[ $code == 1 ]] || fail "it is in use"
says "$alone is in use by"
exec 9>&-
ip link set "$(ls $pci/$network/net)" up
try $PONTOON vfio plan $shared $network
says "$network is in use by network"
ip link set "$(ls $pci/$network/net)" down
unchanged "after plans"

echo "== a card and its sound"
try $PONTOON vfio bind $card
[[ $code == 0 ]] || fail "it is taken"
[[ $(driver $card) == vfio-pci && $(driver $sound) == vfio-pci && -e /dev/vfio/$(group $card) ]] || fail "it is on VFIO"
try $PONTOON vfio status
says "snd_hda_intel"
try $PONTOON gpu list
says "owned by"
try $PONTOON vfio bind $card
says "$card is owned by \`pontoon vfio bind\`: \`pontoon vfio restore $card\`"
try $PONTOON vfio restore $card
[[ $code == 0 ]] || fail "it is put back"
unchanged "a card and its sound"

echo "== a driver that waits"
# Not of this shell: who inherits it and is stuck would keep it for ever.
sleep 1000 < /dev/snd/controlC0 &
holder=$!
sleep 0.5
try $PONTOON vfio plan $card
says "$sound is in use by"
echo $sound > /sys/bus/pci/drivers/snd_hda_intel/unbind &
waiting=$!
for try in {1..50}; do [[ -z $(driver $sound) ]] && break; sleep 0.1; done
try timeout 60 $PONTOON vfio plan $card
says "$sound is in use by a driver that waits until programs let go of it"
kill $holder
wait $waiting
echo $sound > /sys/bus/pci/drivers_probe
for try in {1..50}; do [[ $(driver $sound) == snd_hda_intel ]] && break; sleep 0.1; done
unchanged "a driver that waits"

echo "== what shares a group is taken together, once both are named"
try $PONTOON vfio bind $shared $network
[[ $code == 0 && $(driver $network) == vfio-pci ]] || fail "both are taken"
try $PONTOON vfio restore
unchanged "a group behind a bridge"

echo "== the best of the free ones; one of two that are the same"
try $PONTOON vfio bind
says "free GPUs"
try $PONTOON vfio restore
unchanged "the best"
try $PONTOON vfio bind $twin
[[ $(driver $twin) == vfio-pci && $(driver $other_twin) == virtio-pci ]] || fail "its twin stays"

echo "== what somebody else does is left alone"
echo > $pci/$twin/driver_override
echo $twin > /sys/bus/pci/drivers/vfio-pci/unbind
modprobe pci-stub 2> /dev/null
echo pci-stub > $pci/$twin/driver_override
echo $twin > /sys/bus/pci/drivers_probe
[[ $(driver $twin) == pci-stub ]] || fail "another driver has it"
try $PONTOON vfio restore $twin
says "was changed by somebody else"
[[ $(driver $twin) == pci-stub ]] || fail "it was left alone"
echo $twin > /sys/bus/pci/drivers/pci-stub/unbind
echo > $pci/$twin/driver_override
echo $twin > /sys/bus/pci/drivers_probe
unchanged "by hand"

echo "== the boot display, by force"
try $PONTOON vfio bind --force $boot
[[ $code == 0 && $(driver $boot) == vfio-pci ]] || fail "it is taken"
try $PONTOON vfio restore
unchanged "the boot display"

echo "== virtual functions"
try $PONTOON sriov set $physical 9
says "$physical can have 7 virtual functions, not 9"
try $PONTOON sriov set $card 1
says "$card has no SR-IOV"
try $PONTOON sriov set $physical 2
[[ $code == 0 && $(word $pci/$physical/sriov_numvfs) == 2 ]] || fail "there are two"
function=$(readlink -f $pci/$physical/virtfn0)
function=${function##*/}
[[ -z $(driver $function) ]] || fail "new ones look for no driver"
try $PONTOON vfio plan $physical
says "$physical has 2 virtual functions, which would vanish with it"
try $PONTOON vfio bind $function
[[ $(driver $function) == vfio-pci ]] || fail "one is taken"
try timeout 100 qemu-system-x86_64 -machine q35 -accel tcg -m 64 -nodefaults -display none -serial none -monitor stdio -S \
    -device vfio-pci,host=$function <<< $'info pci\nquit'
says "8086:10ca"
try $PONTOON sriov set $physical 0
says "$function is owned by"
try $PONTOON vfio restore $function
[[ -z $(driver $function) ]] || fail "it has no driver again"
try $PONTOON sriov set $physical 3
[[ $(word $pci/$physical/sriov_numvfs) == 3 ]] || fail "there are three"
try $PONTOON vfio restore $physical
[[ $(word $pci/$physical/sriov_numvfs) == 0 && $(word $pci/$physical/sriov_drivers_autoprobe) == 1 ]] || fail "none, as before"
unchanged "virtual functions"

echo "== a user without rights, through sudo"
let_nobody_ask
try as_nobody /run/bin/pontoon vfio plan $card
[[ $code == 0 ]] || fail "plans need no rights"
try as_nobody /run/bin/pontoon vfio bind $card
[[ $code == 0 && $(driver $card) == vfio-pci ]] || fail "it is taken"
[[ $(stat -c %U /dev/vfio/$(group $card)) == nobody ]] || fail "who asked may open the group"
try as_nobody /run/bin/pontoon vfio status
says "snd_hda_intel"
try as_nobody /run/bin/pontoon vfio restore
[[ $code == 0 ]] || fail "it is put back"
unchanged "through sudo"
# A process of somebody else cannot own.
order='{"order":"hold","devices":["'$card'"],"force":false,"pid":1,"memory_mib":256}'
said=$(echo "$order" | as_nobody sudo /run/bin/pontoon worker passthrough)
says "process 1 is another user's"
unchanged "an order that is not believed"

echo "== slices"
try $PONTOON mdev create $card nvidia-105
says "$card offers no mediated type 'nvidia-105': it offers none"
try $PONTOON mdev rm 123e4567-e89b-12d3-a456-426614174000
says "there is no such mediated device"
echo "ALL DONE"
