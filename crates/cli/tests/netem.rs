//! Guests far away, for real: two network namespaces and the kernel's own `netem` between them, in an emulated computer with
//! Debian's kernel, since the kernel that tests run on may have none. In the other namespace `pontoon bench gpu --over`
//! compares the demo's training step and the forward passes with the same natively.

mod common;

use std::time::Duration;

use common::models::variable;
use pontoon_testbed::{Machine, ready};
use serde_json::Value;

/// Two namespaces with a pair of interfaces for each line, a daemon in one, and what the bench says in the other.
const SCRIPT: &str = r#"
set -e
export XDG_RUNTIME_DIR=/run PONTOON_DATA=/run/data NODEVICE_SELECT=1
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
modprobe veth && modprobe sch_netem
ip netns add host && ip netns add guest
ip -n host link set lo up && ip -n guest link set lo up
printf "[listen]\nsocket = '/run/g/pontoon.sock'\ntls = '0.0.0.0:7300'\n[http]\nenabled = false\n" > /run/pontoon.toml
ip netns exec host PONTOON serve --config /run/pontoon.toml 2> /run/log &
for try in {1..300}; do grep -q "listening on tls:" /run/log && break; sleep 0.1; done
grep "listening on tls:" /run/log || { cat /run/log; exit 1; }
number=0
over=()
for line in LINES; do
    IFS=, read -r name delay rate <<< "$line"
    number=$((number + 1))
    ip link add name near$number netns host type veth peer name far$number netns guest
    for end in host:near:1 guest:far:2; do
        IFS=: read -r space side last <<< "$end"
        ip -n $space address add 10.9.$number.$last/24 dev $side$number
        ip -n $space link set $side$number up
        tc -n $space qdisc replace dev $side$number root netem delay $delay rate $rate limit 100000
    done
    ticket=$(PONTOON token create --config /run/pontoon.toml --tenant afar --address 10.9.$number.1:7300)
    over+=(--over "$name=$ticket")
    # The first asks who is there.
    ip netns exec guest busybox ping -c 1 -q 10.9.$number.1 > /dev/null
    trip=$(ip netns exec guest busybox ping -c 5 -q 10.9.$number.1 | sed -n 's|.* = [0-9.]*/\([0-9.]*\)/.*|\1|p')
    echo "PING $name=$trip"
done
said=$(ip netns exec guest PONTOON bench gpu --quick --json ONLY "${over[@]}" 2> /run/errors) \
    || { cat /run/errors /run/log; exit 1; }
echo "REPORT $(echo "$said" | tr -d '\n')"
kill %1; wait %1 || true
"#;

/// Name, delay in each direction, rate, round trip in ms at least.
type Line = (&'static str, &'static str, &'static str, f64);

const LINES: [Line; 5] = [
    ("0 ms 10 Gbit/s", "0us", "10gbit", 0.0),
    ("0.1 ms 10 Gbit/s", "50us", "10gbit", 0.1),
    ("1 ms 10 Gbit/s", "500us", "10gbit", 1.0),
    ("1 ms 1 Gbit/s", "500us", "1gbit", 1.0),
    ("10 ms 10 Gbit/s", "5ms", "10gbit", 10.0),
];

#[test]
fn a_step_waits_for_no_line() {
    measure(&[LINES[1], LINES[3], LINES[4]], "--only train_step");
}

#[test]
#[ignore = "takes five minutes: `cargo xtask test --full`"]
fn all_programs_over_all_lines() {
    measure(&LINES, "--only train_step --only forward");
}

fn measure(lines: &[Line], programs: &str) {
    let machine = Machine::new().and_then(|machine| variable("PONTOON_GUEST_BIN").map(|_| machine));
    let machine = match machine {
        Ok(machine) => machine,
        Err(reason) => {
            ready(Err(reason));
            return;
        }
    };
    let named: Vec<String> =
        lines.iter().map(|(name, delay, rate, _)| format!("'{name},{delay},{rate}'")).collect();
    let script = SCRIPT
        .replace("PONTOON ", &format!("{} ", env!("CARGO_BIN_EXE_pontoon")))
        .replace("LINES", &named.join(" "))
        .replace("ONLY", programs);
    let said = machine.run(&script, Duration::from_secs(600)).unwrap();
    let report =
        said.lines().find_map(|line| serde_json::from_str::<Value>(line.strip_prefix("REPORT ")?).ok());
    let report = report.unwrap_or_else(|| panic!("{said}"));
    for &(name, _, _, least) in lines {
        let trip =
            said.lines().find_map(|line| line.strip_prefix(&format!("PING {name}="))?.parse::<f64>().ok());
        let trip = trip.unwrap_or_else(|| panic!("{said}"));
        assert!(trip >= least, "netem holds packets back: {trip} ms over {name}");
        for benchmark in report["benchmarks"].as_array().unwrap() {
            let (unit, native) = (benchmark["name"].as_str().unwrap(), benchmark["native"].as_f64().unwrap());
            let (over, ratio) =
                (benchmark["bridged"][name].as_f64().unwrap(), benchmark["ratio"][name].as_f64().unwrap());
            eprintln!(
                "{name} (ping: {trip} ms), TLS, {unit}: {over:.0} us, natively {native:.0} us: {ratio:.2}"
            );
            // The aims are 0.95 at 0.1 ms and 0.9 at 1 ms for a step; a busy machine that is also emulated gives less.
            // Waiting would cost a step several round trips. A forward pass is waited for, once.
            let waits = if unit == "train_step" { 1.0 / 20.0 } else { 1.0 };
            assert!(
                over < native * 1.6 + 2.0 * waits * trip * 1e3,
                "{unit} over {name}: {over} and {native} us"
            );
        }
    }
}
