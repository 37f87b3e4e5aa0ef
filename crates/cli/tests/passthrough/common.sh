# What the scripts share: the devices' state, and what must hold.
set -u
export XDG_RUNTIME_DIR=/run PONTOON_DATA=/run/data NODEVICE_SELECT=1 LC_ALL=C
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json PONTOON_HOST=unix:/run/g/pontoon.sock
pci=/sys/bus/pci/devices
alone=0000:01:00.0 card=0000:02:00.0 sound=0000:02:00.1 shared=0000:04:01.0 network=0000:04:02.0
twin=0000:05:00.0 other_twin=0000:06:00.0 physical=0000:07:00.0 boot=0000:00:01.0
fail() { echo "FAILED: $*"; exit 1; }
# A command, what it printed in $said, and whether it succeeded in $code.
try() { said=$("$@" 2>&1); code=$?; echo "\$ ${*##*/}"; echo "$said"; }
says() { [[ $said == *"$1"* ]] || fail "it does not say '$1'"; }
driver() { local link; link=$(readlink $pci/$1/driver) && echo "${link##*/}"; }
group() { local link; link=$(readlink $pci/$1/iommu_group) && echo "${link##*/}"; }
word() { local text=; read -r text < "$1"; echo "$text"; }
state() {
    local device
    for device in "$pci"/*; do
        device=${device##*/}
        echo "$device $(driver $device) $(word $pci/$device/driver_override) $(word $pci/$device/power/control)"
    done
}
unchanged() {
    local now
    now=$(state)
    [[ $now == "$before" ]] || { diff <(echo "$before") <(echo "$now"); fail "$1: not as it was"; }
    compgen -G '/run/pontoon-passthrough/*.json' && fail "$1: a journal is left"
    return 0
}
# A user without rights, who may ask through sudo.
let_nobody_ask() {
    mkdir -p /run/bin && mount --bind "${PONTOON%/*}" /run/bin
    echo "nobody ALL=(ALL) NOPASSWD: ALL" > /etc/sudoers.d/pontoon && chmod 440 /etc/sudoers.d/pontoon
    hostname emulated && echo "127.0.0.1 emulated" >> /etc/hosts
}
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups env -u TMPDIR "$@"; }
serve() {
    printf "[http]\nenabled = false\n" > /run/pontoon.toml
    $PONTOON serve --config /run/pontoon.toml --socket /run/g/pontoon.sock 2>> /run/log 9>&- &
    daemon=$!
    for try in {1..300}; do [[ -S /run/g/pontoon.sock ]] && break; sleep 0.1; done
}
for module in bochs snd_hda_codec_generic snd_hda_intel e1000 virtio_gpu igb; do modprobe $module; done
for try in {1..100}; do [[ $(driver $sound) == snd_hda_intel && -e /sys/class/sound/card0 ]] && break; sleep 0.1; done
before=$(state)
echo "$before"
