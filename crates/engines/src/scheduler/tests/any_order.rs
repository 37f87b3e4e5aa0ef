//! Any interleaving of anything that can happen keeps every promise, and in the end nobody waits.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::world::{World, mib, profile};

#[derive(Clone, Debug)]
enum Step {
    Arrive { model: u64, caller: u8, cost: u32, keep: Option<u8> },
    Cancel(usize),
    CancelUnknown(u64),
    Finish(usize),
    LoadDone { at: usize, percent: u64 },
    OutOfMemory(usize),
    LoadFails(usize),
    EvictDone(usize),
    Dies(usize),
    Pass(u64),
    Unload(u64),
    Configure { model: u64, need: u64, slots: u32, pinned: bool, reload: bool },
    Budget(u64),
    Grows { at: usize, percent: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let model = 0u64..4;
    prop_oneof![
        8 => (model.clone(), 0u8..5, 1u32..2000, proptest::option::weighted(0.2, 0u8..3))
            .prop_map(|(model, caller, cost, keep)| Step::Arrive { model, caller, cost, keep }),
        2 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<u64>().prop_map(Step::CancelUnknown),
        6 => any::<usize>().prop_map(Step::Finish),
        5 => (any::<usize>(), 50u64..120).prop_map(|(at, percent)| Step::LoadDone { at, percent }),
        1 => any::<usize>().prop_map(Step::OutOfMemory),
        1 => any::<usize>().prop_map(Step::LoadFails),
        5 => any::<usize>().prop_map(Step::EvictDone),
        1 => any::<usize>().prop_map(Step::Dies),
        5 => (0u64..40_000).prop_map(Step::Pass),
        1 => model.clone().prop_map(Step::Unload),
        1 => (model, 10u64..900, 1u32..4, proptest::bool::weighted(0.2), any::<bool>())
            .prop_map(|(model, need, slots, pinned, reload)| Step::Configure { model, need, slots, pinned, reload }),
        1 => (100u64..1500).prop_map(Step::Budget),
        1 => (any::<usize>(), 50u64..150).prop_map(|(at, percent)| Step::Grows { at, percent }),
    ]
}

fn pick<K: Copy, V>(map: &std::collections::BTreeMap<K, V>, at: usize) -> Option<K> {
    map.keys().nth(at.checked_rem(map.len())?).copied()
}

fn play(world: &mut World, step: Step) {
    match step {
        Step::Arrive { model, caller, cost, keep } => {
            let keep = keep.map(|k| match k {
                0 => KeepAlive::For(Duration::ZERO),
                1 => KeepAlive::For(Duration::from_secs(2)),
                _ => KeepAlive::Forever,
            });
            world.arrive_with(ModelId(model), &format!("caller {caller}"), cost, keep);
        }
        Step::Cancel(at) => {
            let waiting = pick(&world.waiting, at).or_else(|| pick(&world.serving, at));
            waiting.into_iter().for_each(|ticket| world.cancel(ticket));
        }
        Step::CancelUnknown(number) => world.event(Event::Cancelled(Ticket(number | 1 << 60))),
        Step::Finish(at) => pick(&world.serving, at).into_iter().for_each(|ticket| world.finish(ticket)),
        Step::LoadDone { at, percent } => {
            if let Some(process) = pick(&world.loading, at) {
                let need = world.loading[&process].1.host;
                world.load_done(process, Some(Memory::host(need * percent / 100)));
            }
        }
        Step::OutOfMemory(at) => {
            let failure = Failure::OutOfMemory("no memory".into());
            pick(&world.loading, at).into_iter().for_each(|p| world.load_fails(p, failure.clone()));
        }
        Step::LoadFails(at) => {
            let failure = Failure::Other("damaged".into());
            pick(&world.loading, at).into_iter().for_each(|p| world.load_fails(p, failure.clone()));
        }
        Step::EvictDone(at) => pick(&world.leaving, at).into_iter().for_each(|p| world.evict_done(p)),
        Step::Dies(at) => pick(&world.up, at).into_iter().for_each(|p| world.dies(p)),
        Step::Pass(millis) => world.after(Duration::from_millis(millis)),
        Step::Unload(model) => world.event(Event::Unload { model: ModelId(model) }),
        Step::Configure { model, need, slots, pinned, reload } => {
            let model = ModelId(model);
            // Fewer slots than are taken are legal; the world counts against the larger number.
            let most = world.profiles[&model].slots.max(slots);
            let profile = Profile { pinned, ..profile(need, slots) };
            world.profiles.insert(model, Profile { slots: most, ..profile });
            world.event(Event::Model { model, profile, reload });
        }
        Step::Budget(size) => world.event(Event::Budget(mib(size))),
        Step::Grows { at, percent } => {
            if let Some(process) = pick(&world.up, at) {
                let entry = world.up.get_mut(&process).expect("it is up");
                entry.1 = Memory::host(entry.1.host * percent / 100);
                let footprint = entry.1;
                world.event(Event::Measured { process, footprint });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The world itself checks at every effect: never beyond the budget when a load starts, one
    /// process a model, nothing evicted that serves, one answer to each request, and none to those who
    /// cancelled.
    #[test]
    fn promises_hold_and_nobody_waits_for_ever(steps in proptest::collection::vec(step(), 1..250)) {
        let limits = Limits { queued: 40, queued_per_caller: 20, ..Limits::default() };
        let mut world = World::new(1000, limits);
        for (id, need) in [(0, 300), (1, 400), (2, 700), (3, 900)] {
            world.model(id, profile(need, 2));
        }
        let mut arrived = 0;
        for step in steps {
            arrived += u64::from(matches!(step, Step::Arrive { .. }));
            play(&mut world, step);
        }
        world.settle();
        prop_assert!(world.waiting.is_empty() && world.serving.is_empty());
        prop_assert_eq!(world.ends.len() as u64, arrived, "each request has exactly one end");
    }

    /// However much a greedy caller asks for, a modest one is served after at most the turns that are
    /// under way and one more of the greedy one's.
    #[test]
    fn a_greedy_caller_does_not_hold_up_a_modest_one(
        greedy in 10usize..120, cost in 100u32..4000, modest in 1u32..100,
    ) {
        let mut world = World::new(1000, Limits::default());
        let model = world.model(0, profile(100, 1));
        for _ in 0..greedy {
            world.arrive(model, "greedy", cost);
        }
        let process = *world.loading.keys().next().expect("a load");
        world.load_done(process, None);
        let first = world.grants[0];
        let asked = world.arrive(model, "modest", modest);
        world.finish(first);
        let second = world.grants[1];
        world.finish(second);
        prop_assert!(world.grants[1..=2].contains(&asked), "served {:?}", world.grants);
    }

    /// Callers with weights get tokens in proportion, within one request of each.
    #[test]
    fn weights_divide_tokens(weight in 1u32..8, costs in proptest::collection::vec(1u32..500, 200)) {
        let mut world = World::new(1000, Limits::default());
        let model = world.model(0, profile(100, 1));
        let mut owner = std::collections::BTreeMap::new();
        for (at, cost) in costs.iter().enumerate() {
            let heavy = at % 2 == 0;
            let ticket = Ticket(10_000 + at as u64);
            owner.insert(ticket, (heavy, *cost));
            world.waiting.insert(ticket, model);
            world.event(Event::Arrived(Arrival {
                ticket,
                model,
                caller: if heavy { "heavy" } else { "light" }.into(),
                weight: if heavy { weight } else { 1 },
                cost: *cost,
                keep_alive: None,
            }));
        }
        let process = *world.loading.keys().next().expect("a load");
        world.load_done(process, None);
        let (mut heavy, mut light, mut waiting) = (0u64, 0u64, [100usize, 100]);
        for turn in 0..costs.len() {
            let ticket = world.grants[turn];
            let (is_heavy, cost) = owner[&ticket];
            *(if is_heavy { &mut heavy } else { &mut light }) += u64::from(cost);
            waiting[usize::from(is_heavy)] -= 1;
            if waiting.contains(&0) {
                break;
            }
            let share = heavy.abs_diff(light * u64::from(weight));
            prop_assert!(share <= 500 * u64::from(weight) + 500, "{heavy} against {light} × {weight}");
            world.finish(ticket);
        }
    }
}
