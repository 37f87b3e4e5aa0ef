# Nothing of ours lives on.
kill_all() {
    pkill -9 -f "worker passthrough"
    pkill -9 -f "pontoon vfio"
    pkill -9 -f "worker step"
    for try in {1..100}; do pgrep -f "worker (passthrough|step)" > /dev/null || return; sleep 0.1; done
    fail "what was killed lives"
}
journal=/run/pontoon-passthrough/group-$(group $card).json
on_vfio() { [[ $(driver $1) == vfio-pci ]]; }
phase() { [[ -e $journal && $(< $journal) == *"\"phase\": \"$1\""* ]]; }
# Kills everything as soon as something holds, and puts back what is left.
killed_when() {
    local words=$1 what=$2
    shift 2
    $PONTOON vfio $what $card > /dev/null 2>&1 &
    local begun=$SECONDS
    until "$@"; do
        (( SECONDS - begun < 90 )) || fail "$words never came"
    done
    kill_all 2> /dev/null
    wait 2> /dev/null
    echo "killed: $words: $(driver $card)/$(word $pci/$card/driver_override) $(driver $sound)/$(word $pci/$sound/driver_override)"
}
overridden() { [[ $(word $pci/$1/driver_override) == vfio-pci ]]; }
free_of() { [[ $(driver $1) != "$2" ]]; }
modprobe vfio-pci
put_back() {
    try $PONTOON vfio restore
    unchanged "$1"
}
echo "== taking"
killed_when "the journal is there" bind phase taking
put_back journal
killed_when "the card is marked" bind overridden $card
put_back card
killed_when "the sound is marked" bind overridden $sound
put_back sound
killed_when "the card is unbound" bind free_of $card bochs-drm
put_back unbound
killed_when "the sound is unbound" bind free_of $sound snd_hda_intel
put_back "sound unbound"
killed_when "the card is on VFIO" bind on_vfio $card
put_back vfio
killed_when "all is taken" bind phase taken
put_back taken

echo "== putting back"
for step in "phase restoring" "free_of $card vfio-pci" "free_of $sound vfio-pci" "free_of $card none"; do
    $PONTOON vfio bind $card > /dev/null || fail "it is taken"
    killed_when "while it is put back: $step" restore $step
    put_back "$step"
done

echo "== a machine's owner, its helper, both"
mkdir -p /run/root/bin && cp "$(command -v busybox)" /run/root/bin/sh
serve
release=$(uname -r)
machine() {
    $PONTOON vm run --accel tcg --gpu=$card --memory 192 --shared-memory 0 --kernel $VMLINUX --modules /lib/modules/$release \
        /run/root /bin/sh -c "sleep 1000" 2> /run/said &
    vm=$!
    # It runs when QEMU has the card.
    for try in {1..900}; do
        grep -q "runs on tcg" /run/said && ls -l /proc/$(pgrep -f ^qemu-system | head -n 1)/fd 2> /dev/null | grep -q "/dev/vfio/$(group $card)" && return
        sleep 0.1
    done
    cat /run/said
    fail "no machine has the card"
}
gone() { for try in {1..900}; do [[ $(state) == "$before" ]] && ! compgen -G '/run/pontoon-passthrough/*.json' > /dev/null && return; sleep 0.1; done; }
machine
try $PONTOON vfio status
says "pontoon vm run (pid $vm)"
try $PONTOON vfio restore $card
says "which lives: end that first"
kill -9 $vm
gone
unchanged "the owner is killed: its helper puts everything back"
machine
pkill -9 qemu-system
wait $vm
gone
unchanged "QEMU is killed"
cat /run/said
machine
kill -TERM $vm
wait $vm
gone
unchanged "the owner ends"
machine
kill $daemon
wait $daemon
pkill -9 -f "worker passthrough"
kill -9 $vm
wait $vm
on_vfio $card || fail "nobody has put it back yet"
serve
gone
unchanged "owner and helper are killed: the supervisor puts everything back when it starts"
grep -o "IOMMU group.*" /run/log
kill $daemon
echo "ALL DONE"
