mkdir -p /run/root/bin && cp "$(command -v busybox)" /run/root/bin/busybox
for applet in sh cat grep; do ln -s busybox /run/root/bin/$applet; done
printf "[http]\nenabled = false\n" > /run/pontoon.toml
$PONTOON serve --config /run/pontoon.toml --socket /run/g/pontoon.sock 2> /run/log &
until [[ -S /run/g/pontoon.sock ]]; do sleep 0.1; done
release=$(uname -r)
begun=$SECONDS
try $PONTOON vm run --accel tcg --cpus 1 --boot-timeout 300 --gpu=$card --memory 256 --shared-memory 0 --kernel $VMLINUX --modules /lib/modules/$release \
    /run/root /bin/sh -c 'grep . /sys/bus/pci/devices/*/class /sys/bus/pci/devices/*/vendor; for d in /sys/bus/pci/devices/*; do echo $d $(cat $d/vendor):$(cat $d/device) $(cat $d/class); ls -l $d/driver; done; exit 7'
echo "the machine within took $((SECONDS - begun)) s"
[[ $code == 7 ]] || fail "the exit code passes through: $code"
unchanged "the machine has ended"
echo "ALL DONE"
